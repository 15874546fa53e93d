import type { Server } from "node:https";
import { Socket } from "node:net";

import { cidrContains, parseCidr } from "../../lib/cidr.ts";
import type { ServerBounds } from "./bounds.ts";

/** Whether a connection from one address to another is let in. */
export type PeerFilter = (remote: string | undefined, local: string | undefined) => boolean;

/**
 * Who may connect: this machine itself, the given networks, and the cluster's nodes: they do so for their pods, whose
 * own addresses stay behind. Undefined admits everybody.
 *
 * @throws {ParseError} for what is no network.
 */
export function peerFilter(
  cidrs: readonly string[] | undefined,
  isNode: (address: string) => boolean = () => false,
): PeerFilter {
  if (cidrs === undefined) return () => true;
  const networks = cidrs.map((cidr) => parseCidr(cidr, "kubeletPeerCIDRs"));
  return (remote, local) => {
    if (remote === undefined) return false;
    const from = withoutMapping(remote);
    // Who talks to an address from that same address is on this machine.
    if (from === withoutMapping(local ?? "") || isLoopback(from)) return true;
    return networks.some((network) => cidrContains(network, from)) || isNode(from);
  };
}

function isLoopback(address: string): boolean {
  return address === "::1" || address.startsWith("127.");
}

/** IPv4 in an IPv6 socket (RFC 4291 section 2.5.5.2). */
function withoutMapping(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, "");
}

type ConnectionBounds = Pick<ServerBounds, "maxConnections" | "maxPipelined" | "maxStrangers">;

/**
 * Bounds what connections can cost before and beside their requests: how many there are, how many of them strangers, and
 * how far one runs ahead of its answers.
 */
export class Connections {
  readonly #allowed: PeerFilter;
  readonly #bounds: ConnectionBounds;
  /** Oldest first, by the far end's address and port. */
  readonly #strangers = new Map<string, Socket>();
  /** Told when there is no stranger any more. */
  readonly #calm: (() => void)[] = [];
  readonly #turns = new WeakMap<Socket, { waiting: number; last: Promise<void> }>();

  constructor(allowed: PeerFilter, bounds: ConnectionBounds) {
    this.#allowed = allowed;
    this.#bounds = bounds;
  }

  /** Must be called before anybody else listens to the server's connections. */
  watch(server: Server): void {
    server.maxConnections = this.#bounds.maxConnections;
    server.prependListener("connection", (socket) => {
      if (socket instanceof Socket) this.#accept(socket);
    });
  }

  #accept(socket: Socket): void {
    if (!this.#allowed(socket.remoteAddress, socket.localAddress)) {
      socket.destroy();
      return;
    }
    const key = farEnd(socket);
    this.#strangers.set(key, socket);
    socket.once("close", () => {
      if (this.#strangers.get(key) === socket) this.#forget(key);
    });
    if (this.#strangers.size <= this.#bounds.maxStrangers) return;
    // The oldest has had the most time to say something; whoever floods us loses its own first.
    const [oldest] = this.#strangers.values();
    oldest?.destroy();
  }

  /** The one at the far end is known: its connection counts as a stranger's no more. */
  admit(socket: Socket): void {
    this.#forget(farEnd(socket));
  }

  /** Resolves when every connection is known or gone. */
  async withoutStrangers(): Promise<void> {
    if (this.#strangers.size > 0) await new Promise<void>((resolve) => this.#calm.push(resolve));
  }

  #forget(key: string): void {
    this.#strangers.delete(key);
    if (this.#strangers.size > 0) return;
    for (const resolve of this.#calm.splice(0)) resolve();
  }

  /** Whether an earlier request of a connection is still being answered. */
  busy(socket: Socket): boolean {
    return (this.#turns.get(socket)?.waiting ?? 0) > 0;
  }

  /** Ends the connections that have asked for nothing yet: no server of HTTP knows of them. */
  endStrangers(): void {
    for (const socket of this.#strangers.values()) socket.destroy();
  }

  /**
   * Resolves when the answers to all earlier requests of a connection have been sent; undefined when too many wait, and
   * the connection should be ended. The result ends this request's turn.
   */
  async turn(socket: Socket): Promise<(() => void) | undefined> {
    const state = this.#turns.get(socket) ?? { waiting: 0, last: Promise.resolve() };
    this.#turns.set(socket, state);
    if (state.waiting > this.#bounds.maxPipelined) return undefined;
    state.waiting += 1;
    const before = state.last;
    const { promise, resolve } = Promise.withResolvers<void>();
    state.last = promise;
    await before;
    return () => {
      state.waiting -= 1;
      resolve();
    };
  }
}

function farEnd({ remoteAddress = "", remotePort = 0 }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
