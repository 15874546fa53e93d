import { ipFamily } from "../../../lib/cidr.ts";
import { type ListeningSocket, listensOn } from "../../../lib/listening-sockets.ts";
import type { StoredService } from "../endpoints/service-endpoints.ts";
import { selectsPod } from "../endpoints/service-endpoints.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { holdsHostPorts, hostPortsOf, type Protocol } from "./host-ports.ts";
import type { BalancerNode } from "./nodes.ts";

/** One port that a Service wants on one address of a node. */
export interface WantedPort {
  readonly ip: string;
  readonly port: number;
  readonly protocol: Protocol;
}

/** The machine that the control plane runs on, which it knows more of than of the others. */
export interface OwnMachine {
  readonly nodeName: string;
  readonly apiServerPort: number;
  readonly listeners: readonly ListeningSocket[];
}

/** The health port of the Service proxy on every node, which load balancers of others ask (--healthz-bind-address). */
const proxyHealthPort = 10_256;

/** What has ports of nodes that is no Service: a Service must not take packets away from it. */
export class TakenPorts {
  readonly #nodes: readonly BalancerNode[];
  readonly #machine: OwnMachine | undefined;
  readonly #podsByNode = new Map<string, StoredPod[]>();

  /** @param pods Those with host ports; others do not matter. */
  constructor(
    nodes: readonly BalancerNode[],
    pods: Iterable<StoredPod>,
    machine: OwnMachine | undefined,
  ) {
    this.#nodes = nodes;
    this.#machine = machine;
    for (const pod of pods) {
      if (!holdsHostPorts(pod)) continue;
      const nodeName = pod.spec?.nodeName ?? "";
      const others = this.#podsByNode.get(nodeName);
      if (others === undefined) this.#podsByNode.set(nodeName, [pod]);
      else others.push(pod);
    }
  }

  /**
   * Who has a port already, in words; undefined when nobody has.
   *
   * @param held The Service has the port since before, so that a program that listens there came later.
   */
  holder(service: StoredService, wanted: WantedPort, held: boolean): string | undefined {
    for (const node of this.#nodes) {
      if (!node.addresses.some(({ ip }) => ip === wanted.ip)) continue;
      const holder = this.#holderOn(node, service, wanted, held);
      if (holder !== undefined) return holder;
    }
    return undefined;
  }

  #holderOn(
    node: BalancerNode,
    service: StoredService,
    wanted: WantedPort,
    held: boolean,
  ): string | undefined {
    const own = this.#machine?.nodeName === node.name ? this.#machine : undefined;
    if (wanted.protocol === "TCP") {
      if (wanted.port === node.kubeletPort) return `the kubelet API of node ${node.name}`;
      if (wanted.port === proxyHealthPort) return `the Service proxy of node ${node.name}`;
      if (wanted.port === own?.apiServerPort) return "the API server";
    }
    const pods = (this.#podsByNode.get(node.name) ?? []).filter((pod) => hasPort(pod, wanted));
    const foreign = pods.find((pod) => !sameBackend(service, pod));
    if (foreign !== undefined) {
      const { name, namespace = "" } = foreign.metadata;
      return `pod ${namespace}/${name} as a host port of node ${node.name}`;
    }
    // A socket on a host port of its own pods is theirs.
    if (own === undefined || held || pods.length > 0) return undefined;
    const listener = listenerOf(own, wanted);
    return listener === undefined
      ? undefined
      : `a program on node ${node.name} that listens on ${bracketed(listener.ip)}:${listener.port}`;
  }
}

function bracketed(ip: string): string {
  return ip.includes(":") ? `[${ip}]` : ip;
}

function hasPort(pod: StoredPod, { ip, port, protocol }: WantedPort): boolean {
  return hostPortsOf(pod).some(
    (host) =>
      host.port === port && host.protocol === protocol && (host.ip === undefined || host.ip === ip),
  );
}

/** Who asks the address gets to a pod of the Service either way. */
function sameBackend(service: StoredService, pod: StoredPod): boolean {
  return service.metadata.namespace === pod.metadata.namespace && selectsPod(service, pod);
}

function listenerOf({ listeners }: OwnMachine, wanted: WantedPort): ListeningSocket | undefined {
  const family = ipFamily(wanted.ip);
  if (family === undefined) return undefined;
  return listeners.find((socket) => listensOn(socket, { ...wanted, family }));
}
