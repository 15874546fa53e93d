import { Command, Option } from "commander";

import type { Level } from "../lib/log.ts";
import { errorMessage, isAbort, isSystemError, RemoraError } from "../lib/errors.ts";
import { type LogFormat, stderrLogger } from "./stderr-logger.ts";
import type { ConfigCheckFlags } from "./commands/config.ts";
import { addConfigurationOptions } from "./configuration-options.ts";
import type {
  DownFlags,
  NodeFlags,
  RunFlags,
  ServiceFlags,
  TokenCreateFlags,
  TokenFlags,
  TraceFlags,
  UpFlags,
} from "./flags.ts";
import {
  logOptionsOf,
  type NodeConfiguration,
  nodeConfiguration,
  upNetworks,
} from "./node-configuration.ts";
import { kubernetesVersion, remoraVersion } from "./version.ts";

const shutdown = new AbortController();

// What is written for everybody to read (volumes, /etc/hosts of pods) must not depend on who started us.
process.umask(0o022);

/** Aborts at the first SIGINT or SIGTERM; a second one ends the process at once. */
function shutdownSignal(): AbortSignal {
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => {
      if (shutdown.signal.aborted) end(130);
      shutdown.abort(new DOMException(`received ${name}`, "AbortError"));
    });
  }
  return shutdown.signal;
}

/** Ends the process even if something still holds its event loop: all that has to be ended in order has been. */
function end(code: number): never {
  // oxlint-disable-next-line unicorn/no-process-exit -- the entry point is the one place that may
  process.exit(code);
}

/** Errors thrown on purpose are sentences for people; anything else is a bug and shows where it is. */
function fail(error: unknown): void {
  if (shutdown.signal.aborted && isAbort(error)) {
    // Told to stop while it started: nothing is half done, because every start finds out what is there.
    process.stderr.write("remora: stopped before it was ready\n");
    end(process.argv[2] === "down" ? 130 : 0);
  }
  const text =
    error instanceof RemoraError || isSystemError(error) || !(error instanceof Error)
      ? errorMessage(error)
      : (error.stack ?? error.message);
  process.stderr.write(`remora: ${text}\n`);
  end(1);
}

function logLevel(fallback: Level): Option {
  return new Option("--log-level <level>", "log lines on stderr from this level up")
    .choices(["debug", "info", "warn", "error"])
    .default(fallback);
}

/** People read `up` and `down`, log shippers read `run`. */
function logFormat(fallback: LogFormat): Option {
  return new Option("--log-format <format>", "how log lines are written")
    .choices(["text", "json"])
    .default(fallback);
}

/** How `up` and `run` log: flags first, then the configuration. */
function logOptions(
  command: Command,
  flags: Pick<NodeFlags, "logLevel" | "logFormat">,
  { configuration }: NodeConfiguration,
): Pick<NodeFlags, "logLevel" | "logFormat"> {
  const given = (flag: string): boolean => command.getOptionValueSource(flag) === "cli";
  return logOptionsOf(flags, given, configuration);
}

function dns(): Option {
  return new Option(
    "--dns <mode>",
    "answer the cluster's DNS on this node: auto = while the cluster's DNS Service leaves it to nodes, off = never (pods then need another name server)",
  )
    .choices(["auto", "local", "off"])
    .default("auto");
}

/** @param fallback `up` is a cluster of its own; what an engine beside it left in the directory of CNI is not for it. */
function podNetwork(fallback: "auto" | "bridge"): Option {
  return new Option(
    "--pod-network <provider>",
    "who gives pods their network: the bridge of Remora, CNI plug-ins, or auto = plug-ins where they are configured",
  )
    .choices(["auto", "bridge", "cni"])
    .default(fallback);
}

function list(value: string): string[] {
  return value.split(",").filter((item) => item !== "");
}

function withNodeOptions(command: Command): Command {
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

const program = new Command("remora")
  .description("A Kubernetes node on Docker: kubelet and service proxy in one daemon.")
  .version(`remora ${remoraVersion} (Kubernetes ${kubernetesVersion})`);

const upCommand = withNodeOptions(program.command("up"))
  .description("make this machine a cluster: embedded control plane and node agent")
  .option("--state-dir <path>", "where everything is kept", "/var/lib/remora")
  .option("--api-port <port>", "port of the API server", "6443")
  .option("--service-cidr <cidr>", "addresses of Services", upNetworks.serviceCIDR)
  .option("--cluster-cidr <cidr>", "addresses of pods", upNetworks.clusterCIDR)
  .addOption(dns())
  .addOption(podNetwork("bridge"))
  .option("--demo", "when the node is ready, play with examples/shop.yaml and remove it again")
  .option("--exit", "with --demo: end behind it; the last line of stdout is its figures as JSON")
  .addOption(logLevel("warn"))
  .addOption(logFormat("text"));
const upSources = addConfigurationOptions(upCommand);
upCommand.action(async (options: UpFlags) => {
  const signal = shutdownSignal();
  const networks = { serviceCIDR: options.serviceCidr, clusterCIDR: options.clusterCidr };
  const node = await nodeConfiguration(upSources(), "up", networks);
  const { up } = await import("./commands/up.ts");
  const flags = { ...options, ...logOptions(upCommand, options, node) };
  await up(flags, node, stderrLogger(flags), signal);
});

const runCommand = withNodeOptions(program.command("run"))
  .description("the node agent alone, joined to a Kubernetes API server")
  .option(
    "--kubeconfig <file>",
    "credentials of this node (system:node:NAME in group system:nodes)",
  )
  .option(
    "--bootstrap-kubeconfig <file>",
    "credentials with which the node asks for those in --kubeconfig, when that is missing or expired",
  )
  .option(
    "--cert-dir <path>",
    "directory of the node's certificates (default: pki below --root-dir)",
  )
  .option("--join <url>", "API server to get credentials from, with a token, at the first start")
  .option(
    "--token <token>",
    "bootstrap token; every user of this machine sees it in the process list",
  )
  .option("--token-file <file>", "file with the bootstrap token (or set REMORA_TOKEN)")
  .option("--ca-hash <hashes>", "sha256:HEX of the cluster's CA, or several", list)
  .option("--unsafe-skip-ca-verification", "join without --ca-hash")
  .option(
    "--proxy-kubeconfig <file>",
    "credentials that may read Services and EndpointSlices (system:kube-proxy)",
  )
  .option("--root-dir <path>", "directory of pods and state", "/var/lib/kubelet")
  .option("--pod-cidr <cidrs>", "pod addresses to use while the Node object has none", list)
  .option("--cluster-cidr <cidrs>", "addresses of all pods of the cluster: not masqueraded", list)
  .option("--cluster-dns <addresses>", "name servers of pods with dnsPolicy ClusterFirst", list)
  .option("--cluster-domain <domain>", "domain of the cluster (default: what the cluster says)")
  .addOption(dns())
  .addOption(podNetwork("auto"))
  .option("--client-ca-file <file>", "CA of clients of port 10250 (default: the kubeconfig's)")
  .option("--tls-cert-file <file>", "certificate of port 10250")
  .option("--tls-private-key-file <file>", "key of port 10250")
  .addOption(logLevel("info"))
  .addOption(logFormat("json"));
const runSources = addConfigurationOptions(runCommand);
runCommand.action(async (options: RunFlags) => {
  const signal = shutdownSignal();
  const node = await nodeConfiguration(runSources(), "run");
  const { run } = await import("./commands/run.ts");
  const flags = { ...options, ...logOptions(runCommand, options, node) };
  await run(flags, node, stderrLogger(flags), signal);
});

program
  .command("down")
  .description("remove everything Remora made on this machine, pods included, and prove it")
  .option("--state-dir <path>", "state directory of `remora up`", "/var/lib/remora")
  .option(
    "--root-dir <path>",
    "directory of `remora run` (/var/lib/kubelet unless it was given another)",
  )
  .option(
    "--delete-volumes",
    "also remove the data of PersistentVolumeClaims, which stays otherwise",
  )
  .option("--hostname-override <name>", "name of the Node object (default: the one it had)")
  .option("--docker-socket <path>", "socket of the Docker Engine (default: the one used before)")
  .addOption(logLevel("warn"))
  .addOption(logFormat("text"))
  .action(async (options: DownFlags) => {
    const { down } = await import("./commands/down.ts");
    await down(options, stderrLogger(options), shutdownSignal());
  });

const token = program
  .command("token")
  .description("bootstrap tokens, with which other machines join this cluster");

function withTokenOptions(command: Command): Command {
  return command
    .option("--state-dir <path>", "state directory of `remora up`", "/var/lib/remora")
    .option("--kubeconfig <file>", "an administrator's credentials for another control plane")
    .addOption(logLevel("warn"))
    .addOption(logFormat("text"));
}

withTokenOptions(token.command("create"))
  .description("make a token and print the command that joins a machine")
  .option("--ttl <duration>", "how long it is good, such as 30m or 24h; 0 = for ever", "24h")
  .option("--description <text>", "what it is for")
  .option("--groups <groups>", "groups of whoever comes with it", list, [
    "system:bootstrappers:kubeadm:default-node-token",
  ])
  .option("--print-join-command", "print the command and nothing else")
  .action(async (options: TokenCreateFlags) => {
    const { createToken } = await import("./commands/token.ts");
    await createToken(options, stderrLogger(options), shutdownSignal());
  });

withTokenOptions(token.command("list"))
  .description("show all tokens, without their secrets")
  .action(async (options: TokenFlags) => {
    const { listTokens } = await import("./commands/token.ts");
    await listTokens(options, stderrLogger(options), shutdownSignal());
  });

withTokenOptions(token.command("delete <ids...>"))
  .description("delete tokens; machines that have joined stay")
  .action(async (ids: readonly string[], options: TokenFlags) => {
    const { deleteTokens } = await import("./commands/token.ts");
    await deleteTokens(ids, options, stderrLogger(options), shutdownSignal());
  });

const config = program.command("config").description("the configuration of `run` and `up`");

const checkCommand = config
  .command("check")
  .description("explain every value of a configuration; takes the flags of `run`")
  .addOption(
    new Option("--for <command>", "which command would get it")
      .choices(["run", "up"])
      .default("run"),
  )
  .option("--service-cidr <cidr>", "of --for up: addresses of Services", upNetworks.serviceCIDR)
  .addOption(new Option("--output <format>", "how").choices(["text", "json"]).default("text"))
  .option("--all", "show defaults too")
  .option("--strict", "fail when something would have no effect");
const checkSources = addConfigurationOptions(checkCommand);
checkCommand.action(async (options: ConfigCheckFlags) => {
  const { checkConfig } = await import("./commands/config.ts");
  process.exitCode = await checkConfig(options, checkSources());
});

config
  .command("print-defaults")
  .description("print a configuration that says nothing but defaults")
  .action(async () => {
    const { printDefaults } = await import("./commands/config.ts");
    printDefaults();
  });

program
  .command("node")
  .description("what this machine's hardware looks like to the cluster")
  .action(async () => {
    const { describeNode } = await import("./commands/node.ts");
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
    const { explain } = await import("./commands/service.ts");
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
    const { trace } = await import("./commands/trace.ts");
    process.exitCode = await trace(options, stderrLogger(options), shutdownSignal());
  });

program.parseAsync().catch(fail);
