import type { Command } from "commander";

import { addConfigurationOptions } from "../configuration-options.ts";
import type { DownFlags, RunFlags, UpFlags } from "../flags.ts";
import { nodeConfiguration, upNetworks } from "../node-configuration.ts";
import { stderrLogger } from "../stderr-logger.ts";
import { shutdownSignal } from "./ending.ts";
import {
  dns,
  list,
  logFormat,
  logLevel,
  logOptions,
  podNetwork,
  withNodeOptions,
} from "./options.ts";

/** Adds the commands that are the node: `up`, `run` and `down`. */
export function addNodeCommands(program: Command): void {
  const upCommand = withNodeOptions(program.command("up"))
    .description("make this machine a cluster: embedded control plane and node agent")
    .option("--state-dir <path>", "where everything is kept", "/var/lib/remora")
    .option("--api-port <port>", "port of the API server", "6443")
    .option(
      "--service-cidr <cidrs>",
      "addresses of Services: one range, or one of each family, comma separated",
      list,
      upNetworks.serviceCIDRs,
    )
    .option(
      "--cluster-cidr <cidrs>",
      "addresses of pods: one range, or one of each family in the same order",
      list,
      upNetworks.clusterCIDRs,
    )
    .addOption(dns())
    .addOption(podNetwork("bridge"))
    .option("--demo", "when the node is ready, play with examples/shop.yaml and remove it again")
    .option("--exit", "with --demo: end behind it; the last line of stdout is its figures as JSON")
    .addOption(logLevel("warn"))
    .addOption(logFormat("text"));
  const upSources = addConfigurationOptions(upCommand);
  upCommand.action(async (options: UpFlags) => {
    const signal = shutdownSignal();
    const networks = { serviceCIDRs: options.serviceCidr, clusterCIDRs: options.clusterCidr };
    const node = await nodeConfiguration(upSources(), "up", networks);
    const { up } = await import("../commands/up.ts");
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
    const { run } = await import("../commands/run.ts");
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
      const { down } = await import("../commands/down.ts");
      await down(options, stderrLogger(options), shutdownSignal());
    });
}
