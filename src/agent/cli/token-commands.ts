import type { Command } from "commander";

import type { TokenCreateFlags, TokenFlags } from "../flags.ts";
import { stderrLogger } from "../stderr-logger.ts";
import { shutdownSignal } from "./ending.ts";
import { list, logFormat, logLevel } from "./options.ts";

function withTokenOptions(command: Command): Command {
  return command
    .option("--state-dir <path>", "state directory of `remora up`", "/var/lib/remora")
    .option("--kubeconfig <file>", "an administrator's credentials for another control plane")
    .addOption(logLevel("warn"))
    .addOption(logFormat("text"));
}

/** Adds `token` and what is below it. */
export function addTokenCommands(program: Command): void {
  const token = program
    .command("token")
    .description("bootstrap tokens, with which other machines join this cluster");

  withTokenOptions(token.command("create"))
    .description("make a token and print the command that joins a machine")
    .option("--ttl <duration>", "how long it is good, such as 30m or 24h; 0 = for ever", "24h")
    .option("--description <text>", "what it is for")
    .option("--groups <groups>", "groups of whoever comes with it", list, [
      "system:bootstrappers:kubeadm:default-node-token",
    ])
    .option("--print-join-command", "print the command and nothing else")
    .action(async (options: TokenCreateFlags) => {
      const { createToken } = await import("../commands/token.ts");
      await createToken(options, stderrLogger(options), shutdownSignal());
    });

  withTokenOptions(token.command("list"))
    .description("show all tokens, without their secrets")
    .action(async (options: TokenFlags) => {
      const { listTokens } = await import("../commands/token.ts");
      await listTokens(options, stderrLogger(options), shutdownSignal());
    });

  withTokenOptions(token.command("delete <ids...>"))
    .description("delete tokens; machines that have joined stay")
    .action(async (ids: readonly string[], options: TokenFlags) => {
      const { deleteTokens } = await import("../commands/token.ts");
      await deleteTokens(ids, options, stderrLogger(options), shutdownSignal());
    });
}
