import type { Command } from "commander";

import { commandTree } from "../completion/command-tree.ts";
import { completionScript } from "../completion/completion-script.ts";
import type { Shell } from "../completion/shells.ts";

/** Prints the completion of `program` for a shell on stdout. */
export function printCompletion(shell: Shell, program: Command): void {
  process.stdout.write(completionScript(shell, commandTree(program)));
}
