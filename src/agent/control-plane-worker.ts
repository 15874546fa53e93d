import { parentPort, workerData } from "node:worker_threads";

import { startControlPlane } from "../controlplane/control-plane.ts";
import type { MachineAddresses } from "../controlplane/machine-addresses.ts";
import { systemClock } from "../lib/clock.ts";
import { errorMessage, isSystemError, RemoraError } from "../lib/errors.ts";
import { random } from "./random.ts";
import { stderrLogger } from "./stderr-logger.ts";
import type { ControlPlaneSettings, HostMessage, WorkerMessage } from "./control-plane-host.ts";
import { kubeletVersion } from "./version.ts";

/** Entry of the control plane's thread. */
async function main(settings: ControlPlaneSettings): Promise<void> {
  const port = parentPort;
  if (port === null) throw new Error("control-plane-worker runs only as a worker thread");
  const send = (message: WorkerMessage): void => port.postMessage(message);
  const stop = new AbortController();
  let take: ((addresses: MachineAddresses) => Promise<void>) | undefined;
  let pending: MachineAddresses | undefined;
  port.on("message", (message: HostMessage) => {
    if (message.kind === "stop") stop.abort(new DOMException("the agent stops", "AbortError"));
    else if (take === undefined) pending = message.addresses;
    else void take(message.addresses);
  });
  try {
    const { logLevel, logFormat, ...options } = settings;
    const controlPlane = await startControlPlane(
      {
        ...options,
        gitVersion: kubeletVersion,
        clock: systemClock,
        logger: stderrLogger({ logLevel, logFormat }).child({ component: "control-plane" }),
        random,
      },
      stop.signal,
    );
    take = (addresses) => controlPlane.setAddresses(addresses);
    if (pending !== undefined) void take(pending);
    send({ kind: "ready", files: controlPlane.files });
    await controlPlane.done;
  } catch (error) {
    const expected = error instanceof RemoraError || isSystemError(error);
    const text =
      expected || !(error instanceof Error) ? errorMessage(error) : (error.stack ?? error.message);
    send({ kind: "failed", expected, text });
  } finally {
    // The port would keep the thread alive.
    port.close();
  }
}

void main(workerData as ControlPlaneSettings);
