import { type Command, Option } from "commander";

import type { ServiceFlags, TraceFlags } from "../flags.ts";
import { stderrLogger } from "../stderr-logger.ts";
import { end, shutdownSignal } from "./ending.ts";
import { logFormat, logLevel } from "./options.ts";

/** Adds the commands that look at this machine and its rules: `node`, `service` and `trace`. */
export function addLookCommands(program: Command): void {
  program
    .command("node")
    .description("what this machine's hardware looks like to the cluster")
    .action(async () => {
      const { describeNode } = await import("../commands/node.ts");
      await describeNode(shutdownSignal());
    });

  program
    .command("service <name>")
    .description(
      "what this node does for a Service: addresses, endpoints and why each is in or out, rules and flows in the kernel; exit code 0 = as it should be, 1 = an error, 2 = the kernel's rules are other ones, 3 = not served by this proxy",
    )
    .option("-n, --namespace <name>", "where it is (default: the kubeconfig's, or NAMESPACE/NAME)")
    .option(
      "--kubeconfig <file>",
      "credentials (default: kubectl's, the administrator's, the agent's)",
    )
    .option("--state-dir <path>", "state directory of `remora up`", "/var/lib/remora")
    .option("--node <name>", "look at it as that node does, without its kernel")
    .option("--agent <address>", "metrics address of this machine's agent", "127.0.0.1:10249")
    .option("--count <seconds>", "count its packets for so long")
    .addOption(new Option("-o, --output <format>", "how").choices(["text", "json"]).default("text"))
    .addOption(logLevel("warn"))
    .addOption(logFormat("text"))
    .action(async (name: string, options: ServiceFlags) => {
      const { explain } = await import("../commands/service.ts");
      process.exitCode = await explain(name, options, stderrLogger(options), shutdownSignal());
    });

  program
    .command("trace")
    // 1 says something about the packet.
    .exitOverride(({ exitCode }) => end(exitCode === 0 ? 0 : 2))
    .description(
      "where a packet ends: sends it through the rules that this node's kernel has, without sending one; exit code 0 = delivered, 1 = not, 2 = cannot tell",
    )
    .requiredOption("--from <sender>", "a pod (NAME or NAMESPACE/NAME), an address, or node")
    .requiredOption("--to <address>", "ADDRESS:PORT, or ADDRESS:PORT/udp, or ADDRESS:PORT/sctp")
    .option("-n, --namespace <name>", "where the pod is (default: the kubeconfig's)")
    .option(
      "--kubeconfig <file>",
      "credentials to find the pod with (default: kubectl's, the administrator's)",
    )
    .option("--state-dir <path>", "state directory of `remora up`", "/var/lib/remora")
    .addOption(new Option("-o, --output <format>", "how").choices(["text", "json"]).default("text"))
    .addOption(logLevel("warn"))
    .addOption(logFormat("text"))
    .action(async (options: TraceFlags) => {
      const { trace } = await import("../commands/trace.ts");
      process.exitCode = await trace(options, stderrLogger(options), shutdownSignal());
    });
}
