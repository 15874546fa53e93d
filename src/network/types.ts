/** A sandbox as the network sees it. */
export interface SandboxNetworkConfig {
  readonly sandboxID: string;
  readonly podUID: string;
  /** `namespace/name`. */
  readonly podKey: string;
  /** Host pid of the process that holds the network namespace. */
  readonly pid: number;
  readonly hostPorts: readonly HostPort[];
  /** What a provider that hands work to plug-ins tells them. */
  readonly pod?: PodNetworkRequest;
}

/** Bits a second (annotations `kubernetes.io/ingress-bandwidth` and `kubernetes.io/egress-bandwidth`). */
export interface PodBandwidth {
  /** What comes to the pod. */
  readonly ingressBits?: number;
  /** What it sends. */
  readonly egressBits?: number;
}

/** What a Pod says that a network may be interested in. */
export interface PodNetworkRequest {
  readonly annotations: Readonly<Record<string, string>>;
  readonly bandwidth?: PodBandwidth;
  /** What its resolv.conf says. */
  readonly dns?: {
    readonly servers: readonly string[];
    readonly searches: readonly string[];
    readonly options: readonly string[];
  };
}

/** What a sandbox has got. */
export interface SandboxNetwork {
  readonly ips: readonly string[];
  /** Why the bandwidth that the pod asks for is not kept to; it is tried again. */
  readonly notLimited?: string;
}

export interface HostPort {
  readonly protocol: "TCP" | "UDP" | "SCTP";
  /** Empty for all addresses of the node. */
  readonly hostIP: string;
  readonly hostPort: number;
  readonly containerPort: number;
}

/** Gives pods their interface and addresses. All calls are idempotent and safe after a crash at any instant. */
export interface PodNetwork {
  /** Reads what earlier runs gave out; until then {@link PodNetwork.addresses} knows of nothing. Needs no podCIDR. */
  load(): Promise<void>;
  /**
   * Makes bridge, forwarding and masquerade rules for the node's pod networks, and takes back the leases of
   * `sandboxes`. Called at start, when podCIDRs become known or change, and again as repair.
   */
  ensureNode(podCIDRs: readonly string[], signal: AbortSignal): Promise<void>;
  /** False while the node has no pod CIDR, or no plug-ins; pods with their own network must then wait (NetworkNotReady). */
  readonly ready: boolean;
  /** Why not, in the words that the node's Ready condition ends in; undefined when it is ready, or cannot say. */
  readonly notReadyReason?: string | undefined;
  /** Gives the sandbox its lease, veth and routes, or finds that all is as it should be. Returns the pod's addresses. */
  setUp(config: SandboxNetworkConfig, signal: AbortSignal): Promise<SandboxNetwork>;
  /** The sandbox's addresses from its lease; undefined when it has none. */
  addresses(sandboxID: string): readonly string[] | undefined;
  /**
   * False when the last {@link collectGarbage} found that somebody took the sandbox's interface away, or off the bridge:
   * then {@link setUp} mends it. A provider that does not look leaves it out.
   */
  isIntact?(sandboxID: string): boolean;
  /** Removes interface, host ports and lease. An unknown sandbox is success. */
  tearDown(sandboxID: string, signal: AbortSignal): Promise<void>;
  /** Frees the leases of all sandboxes that are not in `sandboxIDs` (they died while nobody looked). */
  collectGarbage(sandboxIDs: ReadonlySet<string>, signal: AbortSignal): Promise<void>;
  /** Removes everything this provider ever made on the host. */
  cleanUp(signal: AbortSignal): Promise<void>;
}

/** Addresses of the node itself that live as long as its pod network. */
export interface LocalAddresses {
  /**
   * The node answers on exactly these besides the pods' gateways, as single addresses (/32, /128) on the bridge. At once
   * where the bridge stands; else, and after damage, `ensureNode` puts them there.
   */
  setLocalAddresses(addresses: readonly string[], signal: AbortSignal): Promise<void>;
}
