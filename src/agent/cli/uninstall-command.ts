import type { Command } from "commander";

import type { UninstallFlags } from "../commands/uninstall.ts";
import { stderrLogger } from "../stderr-logger.ts";
import { shutdownSignal } from "./ending.ts";
import { logFormat, logLevel } from "./options.ts";

/** Adds `uninstall`. */
export function addUninstallCommand(program: Command): void {
  program
    .command("uninstall")
    .description(
      "remove everything Remora made on this machine (units, pods, rules, files, settings) and nothing else, and prove it",
    )
    .option("--dry-run", "say what would go and what would stay; change nothing")
    .option("--yes", "do not ask")
    .option("--delete-volumes", "also the data of PersistentVolumeClaims")
    .option("--delete-images", "also images that only pods made this machine pull")
    .option("--delete-node", "also the Node object, with --kubeconfig")
    .option("--kubeconfig <file>", "an administrator's credentials, for --delete-node")
    .option("--packages", "also packages that were installed because Remora needed them")
    .option("--state-dir <path>", "state directory of `remora up` (default: /var/lib/remora)")
    .option("--root-dir <path>", "directory of `remora run` (default: /var/lib/kubelet)")
    .option("--hostname-override <name>", "name of the Node object (default: the one it had)")
    .option("--docker-socket <path>", "socket of the Docker Engine (default: the one used before)")
    .option("--without-engine", "the engine is gone for good: remove everything else")
    .addOption(logLevel("warn"))
    .addOption(logFormat("text"))
    .action(async (options: UninstallFlags) => {
      const { uninstall } = await import("../commands/uninstall.ts");
      await uninstall(options, stderrLogger(options), shutdownSignal());
    });
}
