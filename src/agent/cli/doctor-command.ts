import type { Command } from "commander";

import type { DoctorFlags } from "../commands/doctor.ts";
import type { SupportBundleFlags } from "../commands/support-bundle.ts";
import { end, shutdownSignal } from "./ending.ts";
import { list } from "./options.ts";

/** Options that say which machine's agent is meant. */
function withSiteOptions(command: Command): Command {
  return command
    .option(
      "--state-dir <path>",
      "state directory of `remora up` (default: of the agent that runs)",
    )
    .option("--root-dir <path>", "directory of `remora run` (default: of the agent that runs)")
    .option("--kubeconfig <file>", "an administrator's credentials, for what the agent may not ask")
    .option("--docker-socket <path>", "socket of the Docker Engine (default: the agent's)")
    .option("--agent <address>", "metrics address of this machine's agent", "127.0.0.1:10249");
}

/** Adds `doctor` and `support-bundle`. */
export function addDoctorCommands(program: Command): void {
  withSiteOptions(program.command("doctor"))
    // 1 says something about the machine.
    .exitOverride(({ exitCode }) => end(exitCode === 0 ? 0 : 2))
    .description(
      "what is wrong on this machine, why, and the command that puts it right; before installing and after; exit code 0 = nothing, 1 = something does not work, 2 = something could not be judged",
    )
    .option("--json", "print the report as JSON")
    .option("--all", "also what is fine")
    .option("--only <checks>", "these checks alone, comma separated", list)
    .option("--list", "print the checks there are")
    .action(async (options: DoctorFlags) => {
      const { doctor } = await import("../commands/doctor.ts");
      process.exitCode = await doctor(options, shutdownSignal());
    });
  withSiteOptions(program.command("support-bundle"))
    .description(
      "write one file with what somebody else needs to find out what is wrong here: versions, doctor's report, configuration, rules, states, logs; without secrets",
    )
    .option(
      "--output <file>",
      "a new file, or - for stdout (default: remora-support-NODE-TIME.tar.gz)",
    )
    .action(async (options: SupportBundleFlags) => {
      const { supportBundle } = await import("../commands/support-bundle.ts");
      await supportBundle(options, shutdownSignal());
    });
}
