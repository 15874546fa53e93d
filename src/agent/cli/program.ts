import { Command } from "commander";

import { kubernetesVersion, remoraVersion } from "../version.ts";
import { addCompletionCommand } from "./completion-command.ts";
import { addConfigCommands } from "./config-commands.ts";
import { addDashboardCommand } from "./dashboard-command.ts";
import { addDoctorCommands } from "./doctor-command.ts";
import { addLookCommands } from "./look-commands.ts";
import { addNodeCommands } from "./node-commands.ts";
import { addStatusCommands } from "./status-command.ts";
import { addTokenCommands } from "./token-commands.ts";
import { addUninstallCommand } from "./uninstall-command.ts";

/**
 * The whole command line, as data: what runs is parsed from it, and manual page and completions are written from it.
 * What a command does is imported when it is called.
 */
export function remoraProgram(): Command {
  const program = new Command("remora")
    .description("A Kubernetes node on Docker: kubelet and service proxy in one daemon.")
    .version(`remora ${remoraVersion} (Kubernetes ${kubernetesVersion})`);
  addNodeCommands(program);
  addUninstallCommand(program);
  addTokenCommands(program);
  addConfigCommands(program);
  addLookCommands(program);
  addStatusCommands(program);
  addDoctorCommands(program);
  addDashboardCommand(program);
  addCompletionCommand(program);
  return program;
}
