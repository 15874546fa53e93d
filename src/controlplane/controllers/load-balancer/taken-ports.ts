import { ipFamily } from "../../../lib/cidr.ts";
import { type ListeningSocket, listensOn } from "../../../lib/listening-sockets.ts";
import type { StoredService } from "../endpoints/service-endpoints.ts";
import { selectsPod } from "../endpoints/service-endpoints.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { holdsHostPorts, type HostPort, hostPortsOf, type Protocol } from "./host-ports.ts";
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

/** What has one of these ports on one machine (sshd) usually has it on all; to take it would lock people out. */
const lastSystemPort = 1023;

/** A host port, and whose. */
interface HeldPort extends HostPort {
  readonly pod: StoredPod;
  readonly nodeName: string;
}

/** What has ports of nodes that is no Service: a Service must not take packets away from it. */
export class TakenPorts {
  readonly #nodesByIP = new Map<string, BalancerNode[]>();
  readonly #machine: OwnMachine | undefined;
  /** By number: there are many pods, and few of them matter to one Service. */
  readonly #heldPorts = new Map<number, HeldPort[]>();

  /** @param pods Those with host ports; others do not matter. */
  constructor(
    nodes: readonly BalancerNode[],
    pods: Iterable<StoredPod>,
    machine: OwnMachine | undefined,
  ) {
    this.#machine = machine;
    for (const node of nodes) {
      for (const { ip } of node.addresses) append(this.#nodesByIP, ip, node);
    }
    for (const pod of pods) {
      if (!holdsHostPorts(pod)) continue;
      const nodeName = pod.spec?.nodeName ?? "";
      for (const host of hostPortsOf(pod)) {
        append(this.#heldPorts, host.port, { ...host, pod, nodeName });
      }
    }
  }

  /**
   * Who has a port already, in words; undefined when nobody has.
   *
   * @param held The Service has the port since before, so that a program that listens there came later.
   */
  holder(service: StoredService, wanted: WantedPort, held: boolean): string | undefined {
    for (const node of this.#nodesByIP.get(wanted.ip) ?? []) {
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
    const pods = this.#podsWith(wanted, node);
    const foreign = pods.find((pod) => !sameBackend(service, pod));
    if (foreign !== undefined) {
      const { name, namespace = "" } = foreign.metadata;
      return `pod ${namespace}/${name} as a host port of node ${node.name}`;
    }
    // A socket on a host port of its own pods is theirs.
    return held || pods.length > 0 ? undefined : this.#programOn(node, wanted);
  }

  #programOn({ name }: BalancerNode, wanted: WantedPort): string | undefined {
    const machine = this.#machine;
    const family = ipFamily(wanted.ip);
    if (machine === undefined || family === undefined) return undefined;
    const own = machine.nodeName === name;
    if (!own && wanted.port > lastSystemPort) return undefined;
    // Of another machine it is only known what it is likely to have as well: on all its addresses.
    const target = { ...wanted, family, ip: own ? wanted.ip : "" };
    const listener = machine.listeners.find((socket) => listensOn(socket, target));
    if (listener === undefined) return undefined;
    const at = `${bracketed(listener.ip)}:${listener.port}`;
    return `a program on node ${machine.nodeName} that listens on ${at}${own ? "" : `, and may do so on node ${name}`}`;
  }

  #podsWith({ ip, port, protocol }: WantedPort, { name }: BalancerNode): readonly StoredPod[] {
    return (this.#heldPorts.get(port) ?? [])
      .filter(
        (held) =>
          held.nodeName === name &&
          held.protocol === protocol &&
          (held.ip === undefined || held.ip === ip),
      )
      .map(({ pod }) => pod);
  }
}

function append<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [value]);
  else list.push(value);
}

function bracketed(ip: string): string {
  return ip.includes(":") ? `[${ip}]` : ip;
}

/** Who asks the address gets to a pod of the Service either way. */
function sameBackend(service: StoredService, pod: StoredPod): boolean {
  return service.metadata.namespace === pod.metadata.namespace && selectsPod(service, pod);
}
