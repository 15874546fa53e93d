import type { Level } from "../lib/log.ts";
import type { LogFormat } from "./stderr-logger.ts";

/** Flags that `up`, `run` and `down` share. */
export interface NodeFlags {
  readonly hostnameOverride?: string;
  readonly nodeIp?: readonly string[];
  readonly dockerSocket: string;
  readonly logLevel: Level;
  readonly logFormat: LogFormat;
}

export interface UpFlags extends NodeFlags {
  readonly stateDir: string;
  readonly apiPort: string;
  /** One range, or one of each family, the primary one first. */
  readonly serviceCidr: readonly string[];
  readonly clusterCidr: readonly string[];
  readonly demo?: boolean;
  readonly exit?: boolean;
}

/** Flags of `run` besides those that set a field of the configuration only. */
export interface RunFlags extends NodeFlags {
  readonly kubeconfig?: string;
  readonly bootstrapKubeconfig?: string;
  readonly certDir?: string;
  readonly rotateCertificates?: boolean;
  readonly join?: string;
  readonly token?: string;
  readonly tokenFile?: string;
  readonly caHash?: readonly string[];
  readonly unsafeSkipCaVerification?: boolean;
  readonly proxyKubeconfig?: string;
  readonly rootDir: string;
}

/** Flags that all subcommands of `token` share. */
export interface TokenFlags {
  readonly stateDir: string;
  readonly kubeconfig?: string;
  readonly logLevel: Level;
  readonly logFormat: LogFormat;
}

export interface TokenCreateFlags extends TokenFlags {
  readonly ttl: string;
  readonly description?: string;
  readonly groups: readonly string[];
  readonly printJoinCommand?: boolean;
}

export interface ServiceFlags {
  readonly namespace?: string;
  readonly kubeconfig?: string;
  readonly stateDir: string;
  /** Look at it as another node does; its kernel is out of reach. */
  readonly node?: string;
  /** Where this machine's agent answers (proxyMetricsPort). */
  readonly agent: string;
  readonly output: "text" | "json";
  /** Seconds to count packets for. */
  readonly count?: string;
  readonly logLevel: Level;
  readonly logFormat: LogFormat;
}

export interface TraceFlags {
  /** `node`, an address, or a pod's name, with its namespace in front or without. */
  readonly from: string;
  /** `ADDRESS:PORT`, or with `/udp` or `/sctp` behind it. */
  readonly to: string;
  readonly namespace?: string;
  readonly kubeconfig?: string;
  readonly stateDir: string;
  readonly output: "text" | "json";
  readonly logLevel: Level;
  readonly logFormat: LogFormat;
}

export interface DownFlags extends Omit<NodeFlags, "dockerSocket"> {
  /** Default: the one that the agent used last. */
  readonly dockerSocket?: string;
  readonly stateDir: string;
  readonly rootDir?: string;
  /** Also the data of claims. */
  readonly deleteVolumes?: boolean;
}

export interface StatusFlags {
  readonly json?: boolean;
  readonly watch?: boolean;
  /** Default: that of the agent which has this machine. */
  readonly stateDir?: string;
}

export interface TopFlags {
  readonly sort: "cpu" | "memory" | "name" | "restarts";
  /** As of `status`. */
  readonly stateDir?: string;
}
