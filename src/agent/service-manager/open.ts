import { exec } from "../../lib/exec.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import { parseServiceEnvironment, serviceVariables } from "./environment.ts";
import { openHeldSockets } from "./held-sockets.ts";
import { createNotifier } from "./notifier.ts";
import { ServiceManager } from "./service-manager.ts";

const toolMs = 10_000;

/**
 * Takes what the service manager left in the environment, which is then clean of it.
 *
 * @param signal Told to the service manager when it aborts: we stop.
 */
export async function openServiceManager(
  clock: Clock,
  logger: Logger,
  signal: AbortSignal,
): Promise<ServiceManager> {
  const { pid } = process;
  const environment = parseServiceEnvironment(process.env, pid);
  for (const name of serviceVariables) delete process.env[name];
  const { notifySocket = "" } = environment;
  const notify = createNotifier({
    environment,
    runTool: async (args) => {
      await exec(["systemd-notify", ...args], {
        env: { NOTIFY_SOCKET: notifySocket },
        signal: AbortSignal.timeout(toolMs),
      });
    },
    pid,
    logger,
  });
  const sockets = await openHeldSockets(environment.sockets);
  const service = new ServiceManager({ environment, notify, sockets, clock, logger });
  signal.addEventListener("abort", () => service.stopping(), { once: true });
  return service;
}
