import { type Command, Option } from "commander";

import type { Level } from "../../lib/log.ts";
import type { NodeFlags } from "../flags.ts";
import { logOptionsOf, type NodeConfiguration } from "../node-configuration.ts";
import type { LogFormat } from "../stderr-logger.ts";

export function logLevel(fallback: Level): Option {
  return new Option("--log-level <level>", "log lines on stderr from this level up")
    .choices(["debug", "info", "warn", "error"])
    .default(fallback);
}

/** People read `up` and `down`, log shippers read `run`. */
export function logFormat(fallback: LogFormat): Option {
  return new Option("--log-format <format>", "how log lines are written")
    .choices(["text", "json"])
    .default(fallback);
}

/** How `up` and `run` log: flags first, then the configuration. */
export function logOptions(
  command: Command,
  flags: Pick<NodeFlags, "logLevel" | "logFormat">,
  { configuration }: NodeConfiguration,
): Pick<NodeFlags, "logLevel" | "logFormat"> {
  const given = (flag: string): boolean => command.getOptionValueSource(flag) === "cli";
  return logOptionsOf(flags, given, configuration);
}

export function dns(): Option {
  return new Option(
    "--dns <mode>",
    "answer the cluster's DNS on this node: auto = while the cluster's DNS Service leaves it to nodes, off = never (pods then need another name server)",
  )
    .choices(["auto", "local", "off"])
    .default("auto");
}

/** @param fallback `up` is a cluster of its own; what an engine beside it left in the directory of CNI is not for it. */
export function podNetwork(fallback: "auto" | "bridge"): Option {
  return new Option(
    "--pod-network <provider>",
    "who gives pods their network: the bridge of Remora, CNI plug-ins, or auto = plug-ins where they are configured",
  )
    .choices(["auto", "bridge", "cni"])
    .default(fallback);
}

export function list(value: string): string[] {
  return value.split(",").filter((item) => item !== "");
}

export function withNodeOptions(command: Command): Command {
  return command
    .option(
      "--hostname-override <name>",
      "name of the Node object (default: this machine's host name)",
    )
    .option(
      "--node-ip <addresses>",
      "the node's address, or one of each family, comma separated",
      list,
    )
    .option("--docker-socket <path>", "socket of the Docker Engine", "/var/run/docker.sock");
}
