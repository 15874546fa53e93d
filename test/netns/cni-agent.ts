// An agent's part of CNI in a process of its own, for tests that kill it: cni-agent.ts STATE CONF BIN add|delete PID.
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { createCniNetwork } from "../../src/network/cni/cni-network.ts";

const [stateDir = "", confDir = "", bin = "", operation = "", pid = "0"] = process.argv.slice(2);
const { signal } = new AbortController();
const network = createCniNetwork({
  stateDir,
  confDir,
  binDirs: [bin],
  clusterCIDRs: [],
  clock: systemClock,
  logger: silentLogger,
});
await network.load();
await network.look(signal);
const sandboxID = "crash-test";
if (operation === "add") {
  const { ips } = await network.setUp(
    {
      sandboxID,
      podUID: "uid",
      podKey: "default/crash",
      pid: Number(pid),
      hostPorts: [{ protocol: "TCP", hostIP: "", hostPort: 9191, containerPort: 80 }],
    },
    signal,
  );
  process.stdout.write(ips.join());
} else {
  await network.tearDown(sandboxID, signal);
}
