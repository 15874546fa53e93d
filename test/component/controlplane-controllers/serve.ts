// A control plane in a process of its own, for tests that kill it: serve.ts DIRECTORY. Prints its port when it answers.
import { startControlPlane } from "../../../src/controlplane/control-plane.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { options } from "./world.ts";

const controlPlane = await startControlPlane(
  options(process.argv[2] ?? "", systemClock),
  new AbortController().signal,
);
process.stdout.write(`${controlPlane.port}\n`);
await controlPlane.done;
