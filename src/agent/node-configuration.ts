import { access } from "node:fs/promises";
import { availableParallelism, hostname } from "node:os";
import { dirname } from "node:path";

import { agentConfig, agentDefaults } from "../config/agent-config.ts";
import { agentMembers, dockerSocketOf, isSet } from "../config/agent-members.ts";
import {
  type Configuration,
  type ConfigurationSources,
  readConfiguration,
  refuseErrors,
  type SettingKind,
} from "../config/configuration.ts";
import { type Remark, remarkText } from "../config/decode.ts";
import { cgroupRemarks, fileRemarks } from "../config/file-checks.ts";
import { hostRemarks, proxyKubeconfigOf } from "../config/host-checks.ts";
import { originText } from "../config/raw.ts";
import type { Json } from "../config/shape.ts";
import type { AgentConfig } from "../config/types.ts";
import { checkReservations } from "../kubelet/node/allocatable.ts";
import { systemHost } from "../kubelet/node/host.ts";
import { tlsLimits } from "../kubelet/server/tls-limits.ts";
import { cidrAddress, parseCidr } from "../lib/cidr.ts";
import { errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { NodeFlags, RunFlags } from "./flags.ts";
import type { LogFormat } from "./stderr-logger.ts";

/** Which command a configuration is for. */
export type ConfigurationUse = "run" | "up";

/** The networks of a cluster that `up` makes, one of each family, the primary one first. */
export interface UpNetworks {
  readonly serviceCIDRs: readonly string[];
  readonly clusterCIDRs: readonly string[];
}

/** What `up` makes where its flags say nothing. */
export const upNetworks: UpNetworks = {
  serviceCIDRs: ["10.96.0.0/16"],
  clusterCIDRs: ["10.244.0.0/16"],
};

/** The name server of a cluster that `up` makes: the tenth address, as everywhere. @throws {ParseError} */
export function upClusterDNS({ serviceCIDRs }: Pick<UpNetworks, "serviceCIDRs">): string {
  return cidrAddress(parseCidr(serviceCIDRs[0] ?? "", "--service-cidr"), 10);
}

/** What `remora up` decides itself, how it is told, and what a configuration may say because it is the same. */
const decidedByUp: readonly (readonly [
  kind: SettingKind,
  path: string,
  remedy: string,
  same?: (networks: UpNetworks) => Json,
])[] = [
  ["RemoraConfiguration", "kubeconfig", "`up` makes its own credentials"],
  ["RemoraConfiguration", "bootstrapKubeconfig", "`up` makes its own credentials"],
  ["RemoraConfiguration", "certDir", "`up` keeps certificates below --state-dir"],
  ["RemoraConfiguration", "rootDir", "`up` keeps everything below --state-dir"],
  [
    "RemoraConfiguration",
    "serviceCIDRs",
    "say --service-cidr",
    ({ serviceCIDRs }) => [...serviceCIDRs],
  ],
  [
    "KubeletConfiguration",
    "clusterDNS",
    "it is the tenth address of --service-cidr",
    (networks) => [upClusterDNS(networks)],
  ],
  [
    "KubeletConfiguration",
    "clusterDomain",
    `it is ${agentDefaults.clusterDomain}`,
    () => agentDefaults.clusterDomain,
  ],
  ["KubeletConfiguration", "podCIDR", "say --cluster-cidr"],
  ["KubeletConfiguration", "authentication.x509.clientCAFile", "`up` has a CA of its own"],
  ["KubeletConfiguration", "tlsCertFile", "`up` has a CA of its own"],
  ["KubeletConfiguration", "tlsPrivateKeyFile", "`up` has a CA of its own"],
  ["KubeletConfiguration", "serverTLSBootstrap", "`up` has a CA of its own"],
  ["KubeletConfiguration", "rotateCertificates", "`up` renews its certificates itself", () => true],
  ["KubeProxyConfiguration", "clientConnection.kubeconfig", "`up` makes its own credentials"],
  [
    "KubeProxyConfiguration",
    "clusterCIDR",
    "say --cluster-cidr",
    ({ clusterCIDRs }) => clusterCIDRs.join(),
  ],
];

/** What every start decides after the configuration. */
const noFiles = { kubeconfig: "/", proxyKubeconfig: "/" };

function upRemarks({ settings }: Configuration, networks: UpNetworks): readonly Remark[] {
  return decidedByUp.flatMap(([kind, path, remedy, same]): Remark[] => {
    const setting = settings[kind].get(path);
    const origin = setting?.origin;
    // Its own flag says the same thing to both halves.
    if (origin === undefined || (origin.kind === "flag" && origin.flag === "cluster-cidr"))
      return [];
    const said = JSON.stringify(setting?.leaf.type.encode(setting.value ?? ""));
    if (same !== undefined && said === JSON.stringify(same(networks))) return [];
    return [
      { severity: "error", kind, path, origin, text: `is decided by \`remora up\`: ${remedy}` },
    ];
  });
}

/** The directory itself, or the nearest one above it: where a start would make it. */
async function nearestThere(directory: string): Promise<string> {
  const there = await access(directory).then(
    () => true,
    () => false,
  );
  return there || directory === "/" ? directory : nearestThere(dirname(directory));
}

/** What the agent would refuse at its start although each field is good by itself. */
async function startRemarks(
  configuration: Configuration,
  use: ConfigurationUse,
): Promise<readonly Remark[]> {
  const members = agentMembers(configuration, availableParallelism());
  const { tlsCipherSuites = [], tlsCurvePreferences = [], maxPods = 0 } = members;
  // Where `up` keeps its files is known later; its usual place is on the same disk most of the time.
  const rootDir = use === "up" ? "/var/lib/remora" : configuration.remora.rootDir;
  const capacity = await systemHost().capacity(await nearestThere(rootDir), maxPods);
  const name = (configuration.remora.hostnameOverride || hostname()).toLowerCase();
  const tries: readonly (readonly [SettingKind | "", string, () => unknown])[] = [
    ["KubeletConfiguration", "tlsCipherSuites", () => tlsLimits({ tlsCipherSuites })],
    ["KubeletConfiguration", "tlsCurvePreferences", () => tlsLimits({ tlsCurvePreferences })],
    ["RemoraConfiguration", "hostnameOverride", () => agentConfig({ ...noFiles, nodeName: name })],
    [
      "",
      "",
      () => checkReservations(capacity, agentConfig({ ...members, ...noFiles, nodeName: "node" })),
    ],
  ];
  return tries.flatMap(([kind, path, attempt]): Remark[] => {
    const origin = kind === "" ? undefined : configuration.settings[kind].get(path)?.origin;
    try {
      attempt();
      return [];
    } catch (error) {
      return [
        {
          severity: "error",
          kind,
          path,
          origin,
          text: errorMessage(error).replace(/^[a-zA-Z]+: /, ""),
        },
      ];
    }
  });
}

/** A configuration together with what this machine, and the command that wants it, have to say about it. */
export async function judgedConfiguration(
  sources: ConfigurationSources,
  use: ConfigurationUse,
  networks: UpNetworks = upNetworks,
): Promise<Configuration> {
  const configuration = await readConfiguration(sources);
  const remarks = [
    ...configuration.remarks,
    ...(use === "up" ? upRemarks(configuration, networks) : []),
    ...(await hostRemarks(configuration)),
    ...(await cgroupRemarks(configuration)),
    ...(await fileRemarks(configuration)),
  ];
  // Errors of single fields come first: what is made of them would only repeat them.
  const wrong = remarks.some(({ severity }) => severity === "error");
  return {
    ...configuration,
    remarks: wrong ? remarks : [...remarks, ...(await startRemarks(configuration, use))],
  };
}

/** What a command needs of its configuration. */
export interface NodeConfiguration {
  readonly configuration: Configuration;
  /** Members of {@link AgentConfig} that the configuration decides. */
  readonly members: Partial<AgentConfig>;
}

/**
 * Reads the configuration of a node.
 *
 * @throws {SetupError} listing everything that has to be put right.
 */
export async function nodeConfiguration(
  sources: ConfigurationSources,
  use: ConfigurationUse,
  networks: UpNetworks = upNetworks,
): Promise<NodeConfiguration> {
  const configuration = await judgedConfiguration(sources, use, networks);
  refuseErrors(configuration);
  return { configuration, members: agentMembers(configuration, availableParallelism()) };
}

/** Says what was accepted without effect and what is not as it should be, a line for each field. */
export function logRemarks({ remarks, skipped }: Configuration, logger: Logger): void {
  for (const remark of remarks) {
    const msg =
      remark.severity === "warning"
        ? "configuration names what is not there"
        : "configuration is not used as written";
    logger.log("warn", msg, {
      remark: remarkText({ ...remark, origin: undefined }),
      ...(remark.origin === undefined ? {} : { from: originText(remark.origin) }),
    });
  }
  for (const file of skipped) {
    logger.log("info", "file skipped, its name does not end in .conf", { file });
  }
}

/** Flags that `up` and `run` share, as the whole configuration says them. */
export function nodeFlagsOf<F extends NodeFlags>(flags: F, configuration: Configuration): F {
  const { hostnameOverride, nodeIPs } = configuration.remora;
  return {
    ...flags,
    ...(hostnameOverride === "" ? {} : { hostnameOverride }),
    ...(nodeIPs.length === 0 ? {} : { nodeIp: nodeIPs }),
    dockerSocket: dockerSocketOf(configuration),
  };
}

/** Flags of `run` as the whole configuration says them. */
export async function runFlagsOf(flags: RunFlags, configuration: Configuration): Promise<RunFlags> {
  const { kubeconfig, bootstrapKubeconfig, certDir, rootDir } = configuration.remora;
  const proxyKubeconfig = await proxyKubeconfigOf(configuration);
  return {
    ...nodeFlagsOf(flags, configuration),
    ...(kubeconfig === "" ? {} : { kubeconfig }),
    ...(bootstrapKubeconfig === "" ? {} : { bootstrapKubeconfig }),
    ...(certDir === "" ? {} : { certDir }),
    ...(isSet(configuration, "KubeletConfiguration", "rotateCertificates")
      ? { rotateCertificates: configuration.kubelet.rotateCertificates }
      : {}),
    ...(proxyKubeconfig === "" ? {} : { proxyKubeconfig }),
    rootDir,
  };
}

/** From klog's 4 on people look for a fault. */
const debugVerbosity = 4;

/** How to log: the flags that were given, then `logging` of the KubeletConfiguration, then the flags' defaults. */
export function logOptionsOf(
  flags: Pick<NodeFlags, "logLevel" | "logFormat">,
  given: (flag: "logLevel" | "logFormat") => boolean,
  configuration: Configuration,
): Pick<NodeFlags, "logLevel" | "logFormat"> {
  const { format, verbosity } = configuration.kubelet.logging;
  const said = (path: string): boolean => isSet(configuration, "KubeletConfiguration", path);
  const verbose = verbosity >= debugVerbosity && !given("logLevel");
  const written: LogFormat = format === "json" ? "json" : "text";
  return {
    logLevel: verbose ? "debug" : flags.logLevel,
    logFormat: said("logging.format") && !given("logFormat") ? written : flags.logFormat,
  };
}
