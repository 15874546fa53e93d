import { Argument, type Command } from "commander";

import { type Shell, shells } from "../completion/shells.ts";

/** Adds `completion`. */
export function addCompletionCommand(program: Command): void {
  program
    .command("completion")
    .description("print the completion of this command line for a shell")
    .addArgument(new Argument("<shell>", "which shell").choices(shells))
    .action(async (shell: Shell) => {
      const { printCompletion } = await import("../commands/completion.ts");
      printCompletion(shell, program);
    });
}
