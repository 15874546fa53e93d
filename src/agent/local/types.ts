/**
 * What a running agent tells on its own socket (`local.sock` in its state directory, for root and the group `remora`):
 * HTTP/1.1, JSON. `GET /v1/snapshot` is one NodeSnapshot; `GET /v1/snapshots` is one per line, the first at once and
 * another whenever something has changed, at most one a second and at least one every ten. `remora status`, `remora top`,
 * `remora doctor` and the dashboard read it and nothing else of the agent.
 *
 * Times are RFC 3339 in UTC. Sizes are bytes, CPU is in cores.
 */
export interface NodeSnapshot {
  /** Raised when a member changes its meaning; members may be added without. */
  readonly schema: 1;
  readonly time: string;
  readonly agent: AgentSummary;
  readonly node: NodeSummary;
  /** Those that this node runs or was told to run, in the order of namespace and name. */
  readonly pods: readonly PodSummary[];
  /** Those that no node has yet, where this machine is the whole cluster; absent where nobody here may know. */
  readonly unscheduled?: readonly PodSummary[];
  /** Images on their way. */
  readonly pulls: readonly PullSummary[];
  readonly services: ServicesSummary;
  readonly usage: UsageSummary;
  /** The newest last; as many as fit into an hour and two hundred. */
  readonly events: readonly EventSummary[];
}

export interface AgentSummary {
  readonly version: string;
  readonly kubernetesVersion: string;
  readonly mode: "up" | "run";
  readonly pid: number;
  readonly started: string;
  /** Resident memory of the agent and its threads. */
  readonly rssBytes: number;
  readonly stateDir: string;
}

export interface NodeSummary {
  readonly name: string;
  readonly ready: boolean;
  /** The Ready condition's reason and message. */
  readonly reason: string;
  readonly message: string;
  readonly conditions: readonly {
    readonly type: string;
    readonly status: string;
    readonly reason: string;
    readonly message: string;
    readonly since: string | undefined;
  }[];
  readonly addresses: readonly { readonly type: string; readonly address: string }[];
  /** As the engine calls itself, such as `docker://29.7.0`. */
  readonly runtime: string;
  readonly apiServer: {
    readonly url: string;
    readonly reachable: boolean;
    /** When the last heartbeat was written. */
    readonly lastHeartbeat: string | undefined;
  };
  /** Quantities as numbers: cores and bytes. */
  readonly allocatable: { readonly cpu: number; readonly memory: number; readonly pods: number };
  /** The sum of what its pods request. */
  readonly requested: { readonly cpu: number; readonly memory: number };
}

export interface PodSummary {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly phase: string;
  readonly ready: boolean;
  /** As `kubectl get pods` shows it: `Running`, `CrashLoopBackOff`, `Init:0/1`, `Terminating`. */
  readonly status: string;
  /** One sentence on why it is not Ready, with the container and the cause; empty when it is, and when it is done. */
  readonly why: string;
  readonly readyContainers: number;
  readonly containers: number;
  readonly restarts: number;
  readonly created: string;
  readonly ip: string;
  readonly cpu: number | undefined;
  readonly memory: number | undefined;
}

export interface PullSummary {
  readonly image: string;
  readonly started: string;
  /** Undefined while the registry has not said it. */
  readonly totalBytes: number | undefined;
  readonly doneBytes: number;
  /** All is here and is being unpacked. */
  readonly unpacking?: boolean;
  /** Others are pulled before it (`serializeImagePulls`, `maxParallelImagePulls`). */
  readonly queued?: boolean;
  /** Pods that wait for it, as `namespace/name`. */
  readonly pods: readonly string[];
}

export interface ServicesSummary {
  /** `nftables` or `iptables`; `off` when this node serves none. */
  readonly mode: string;
  readonly services: number;
  readonly endpoints: number;
  /** When the kernel got the last change, and how long that took. */
  readonly lastSync: string | undefined;
  readonly lastSyncSeconds: number | undefined;
  /** Those with the most endpoints first; at most five hundred. */
  readonly list: readonly ServiceSummary[];
}

export interface ServiceSummary {
  readonly namespace: string;
  readonly name: string;
  readonly type: string;
  readonly clusterIPs: readonly string[];
  /** Such as `80/TCP`, or `80:30080/TCP` with a node port. */
  readonly ports: readonly string[];
  readonly ready: number;
  readonly total: number;
  /** Pods of this node behind it, as `namespace/name`: the edges of the service graph. */
  readonly localPods: readonly string[];
}

export interface UsageSummary {
  /** Of the whole machine, over the time since the snapshot before. */
  readonly cpu: number;
  readonly cpuCapacity: number;
  readonly memory: number;
  readonly memoryCapacity: number;
  /** The file system of the state directory. */
  readonly disk: { readonly used: number; readonly capacity: number };
  /** Bytes received and sent a second, over the machine's own interfaces. */
  readonly network: { readonly received: number; readonly sent: number };
}

export interface EventSummary {
  readonly time: string;
  readonly type: "Normal" | "Warning";
  readonly reason: string;
  /** As `Pod default/web-1`. */
  readonly object: string;
  readonly message: string;
  readonly count: number;
}
