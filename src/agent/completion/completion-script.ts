import { bashCompletion } from "./bash.ts";
import type { CommandNode } from "./command-tree.ts";
import { fishCompletion } from "./fish.ts";
import type { Shell } from "./shells.ts";
import { zshCompletion } from "./zsh.ts";

const writers: Readonly<Record<Shell, (program: CommandNode) => string>> = {
  bash: bashCompletion,
  zsh: zshCompletion,
  fish: fishCompletion,
};

/** The completion of a program for a shell, to be sourced or put where the shell looks. */
export function completionScript(shell: Shell, program: CommandNode): string {
  return writers[shell](program);
}
