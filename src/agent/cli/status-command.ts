import { type Command, Option } from "commander";

import type { StatusFlags, TopFlags } from "../flags.ts";
import { shutdownSignal } from "./ending.ts";

const stateDir = "state directory of the agent (default: the one that runs on this machine)";

/** Adds `status` and `top`: what the agent of this machine tells of itself. */
export function addStatusCommands(program: Command): void {
  program
    .command("status")
    .description(
      "how this machine's node is: pulls, pods that are not ready and why, Services, warnings; exit code 0 = Ready, 1 = not, 3 = no agent tells",
    )
    .option("--json", "all that the agent tells; with --watch one object a line")
    .option("-w, --watch", "go on; without a terminal a report whenever something changes")
    .option("--state-dir <path>", stateDir)
    .action(async (options: StatusFlags) => {
      const { status } = await import("../commands/status.ts");
      process.exitCode = await status(options, shutdownSignal());
    });

  program
    .command("top")
    .description("what pods use and how they are, live; without a terminal once")
    .addOption(
      new Option("--sort <column>", "by what pods are sorted at first")
        .choices(["cpu", "memory", "name", "restarts"])
        .default("cpu"),
    )
    .option("--state-dir <path>", stateDir)
    .action(async (options: TopFlags) => {
      const { top } = await import("../commands/top.ts");
      process.exitCode = await top(options, shutdownSignal());
    });
}
