import type { Command } from "commander";

import type { DashboardFlags } from "../commands/dashboard.ts";
import { shutdownSignal } from "./ending.ts";

/** Adds `dashboard`. */
export function addDashboardCommand(program: Command): void {
  program
    .command("dashboard")
    .description(
      "a page in the browser that shows this node live: pods, Services, resources, events; for this machine alone",
    )
    .option("--port <port>", "port to serve it on; 0 = a free one", "10300")
    .option("--address <address>", "address of this machine's loopback", "127.0.0.1")
    .option("--print-url", "write the page's address, and nothing else, to stdout")
    .option(
      "--state-dir <path>",
      "state directory of the agent (default: /var/lib/remora or /var/lib/kubelet)",
    )
    .action(async (options: DashboardFlags) => {
      const { dashboard } = await import("../commands/dashboard.ts");
      await dashboard(options, shutdownSignal());
    });
}
