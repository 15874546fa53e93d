import { once } from "node:events";
import { readlinkSync } from "node:fs";
import { connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";

import type { Clock } from "../../../lib/clock.ts";
import { errorMessage, RemoraError } from "../../../lib/errors.ts";
import { type ChannelChild, spawnWithChannel } from "../../../lib/exec.ts";
import { isRecord, optionalString } from "../../../lib/guard.ts";

/** Nothing answered on the port inside the pod. */
export class DialError extends RemoraError {
  readonly code = "REMORA_DIAL";
}

/** Where a pod's loopback is. */
export type PodLoopback =
  | { readonly kind: "node" }
  | {
      readonly kind: "namespace";
      /** Host pid of a process in the pod's network namespace. */
      readonly pid: number;
      /** As the kernel names it, such as `net:[4026532008]`: the pid may be somebody else's by the time of a dial. */
      readonly namespace: string;
    };

/** Connects to a port on the loopback of a pod, IPv4 first. The result half-closes. @throws {DialError} */
export type PodDialer = (at: PodLoopback, port: number, signal: AbortSignal) => Promise<Duplex>;

const hosts = ["127.0.0.1", "::1"];
/** How long a helper waits for the next connection. */
const idleMs = 10_000;

/**
 * Runs inside the pod's network namespace, which no thread of ours can enter: connects there and hands the connected
 * socket over, so that the bytes do not pass through it. Given as text, so that it is the same whether we run from
 * source or from one bundled file. It ends with the channel, so also when we are killed.
 */
const program = `
const { readlinkSync } = require("node:fs");
const { connect } = require("node:net");
const dial = (id, port, [host, ...others], first) => {
  const socket = connect({ host, port, allowHalfOpen: true });
  // What is read here would be lost on the way.
  socket.pause();
  socket.once("error", (error) => {
    if (others.length > 0) dial(id, port, others, first ?? error);
    else process.send({ id, error: (first ?? error).message });
  });
  socket.once("connect", () => process.send({ id }, socket));
};
process.on("message", ({ id, port, hosts }) => dial(id, port, hosts));
process.on("disconnect", () => process.exit());
process.send({ namespace: readlinkSync("/proc/self/ns/net") });
`;

/** The network namespace of a process, by its host pid. @throws when there is no such process. */
export function networkNamespace(pid: number | "self"): string {
  return readlinkSync(`/proc/${pid}/ns/net`);
}

async function dialNode(port: number, signal: AbortSignal): Promise<Socket> {
  let failure: unknown;
  for (const host of hosts) {
    const socket = connect({ host, port, allowHalfOpen: true });
    try {
      await once(socket, "connect", { signal });
      return socket;
    } catch (error) {
      socket.destroy();
      failure ??= error;
    }
  }
  throw new DialError(errorMessage(failure), { cause: failure });
}

interface Dialing {
  readonly taken: (socket: Socket) => void;
  readonly failed: (error: unknown) => void;
}

interface HelperOptions {
  readonly pid: number;
  readonly namespace: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** One process in one network namespace. It ends itself when it has not been used for a while. */
class NamespaceHelper {
  readonly #clock: Clock;
  readonly #child: ChannelChild;
  readonly #dialing = new Map<number, Dialing>();
  readonly #ready: Promise<void>;
  readonly #over = new AbortController();
  #dialed = 0;
  #resting = false;

  constructor({ pid, namespace, clock, signal }: HelperOptions) {
    this.#clock = clock;
    const node = readlinkSync("/proc/self/exe");
    this.#child = spawnWithChannel(["nsenter", "-t", `${pid}`, "-n", "--", node, "-e", program], {
      signal,
    });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#ready = promise;
    this.#child.onMessage((message, socket) => {
      if (!isRecord(message)) return;
      if (message["namespace"] === namespace) resolve();
      else if (message["namespace"] !== undefined) reject(gone());
      else this.#settle(Number(message["id"]), optionalString(message["error"]), socket);
    });
    // Told to those that dial, if there are any by then.
    promise.catch(() => undefined);
    void this.#watch(reject);
  }

  async #watch(failed: (error: DialError) => void): Promise<void> {
    const stderr = (await this.#child.ended).trim();
    const error = new DialError(stderr === "" ? "the helper inside the pod ended" : stderr);
    failed(error);
    for (const dialing of this.#dialing.values()) dialing.failed(error);
    this.#over.abort();
  }

  /** Aborts when it takes no more. */
  get over(): AbortSignal {
    return this.#over.signal;
  }

  async dial(port: number, signal: AbortSignal): Promise<Socket> {
    const id = (this.#dialed += 1);
    const { promise, resolve, reject } = Promise.withResolvers<Socket>();
    const abort = (): void => {
      reject(signal.reason);
    };
    this.#dialing.set(id, { taken: resolve, failed: reject });
    signal.addEventListener("abort", abort, { once: true });
    if (signal.aborted) abort();
    const ask = async (): Promise<void> => {
      await this.#ready;
      if (this.#dialing.has(id)) this.#child.send({ id, port, hosts });
    };
    ask().catch(reject);
    try {
      return await promise;
    } finally {
      signal.removeEventListener("abort", abort);
      // A socket that comes after all is closed as it arrives.
      this.#dialing.delete(id);
      if (!this.#resting) void this.#rest();
    }
  }

  /** Ends it when nothing was asked of it for a while. */
  async #rest(): Promise<void> {
    this.#resting = true;
    for (let last = -1; last !== this.#dialed || this.#dialing.size > 0;) {
      last = this.#dialed;
      await this.#clock.sleep(idleMs, this.over).catch(() => undefined);
      if (this.over.aborted) return;
    }
    this.#over.abort();
    this.#child.close();
  }

  #settle(id: number, error: string | undefined, socket: Socket | undefined): void {
    const dialing = this.#dialing.get(id);
    if (dialing === undefined) socket?.destroy();
    else if (socket === undefined) dialing.failed(new DialError(error ?? "no connection came"));
    else {
      // As on the other end; a socket that is handed over forgets it.
      socket.allowHalfOpen = true;
      dialing.taken(socket);
    }
  }
}

function gone(): DialError {
  return new DialError("the pod's network is gone: its sandbox has ended");
}

/**
 * Dials for real: the node's own loopback, or that of a network namespace through a helper there, which stays for ten
 * seconds after its last use. All helpers end with `signal`.
 */
export function createPodDialer(clock: Clock, signal: AbortSignal): PodDialer {
  const helpers = new Map<string, NamespaceHelper>();
  const helperOf = (pid: number, namespace: string): NamespaceHelper => {
    const known = helpers.get(namespace);
    if (known?.over.aborted === false) return known;
    const helper = new NamespaceHelper({ pid, namespace, clock, signal });
    helpers.set(namespace, helper);
    const forget = (): void => {
      if (helpers.get(namespace) === helper) helpers.delete(namespace);
    };
    helper.over.addEventListener("abort", forget, { once: true });
    return helper;
  };
  return async (at, port, dialSignal) => {
    if (at.kind === "node") return dialNode(port, dialSignal);
    dialSignal.throwIfAborted();
    if (namespaceOrNone(at.pid) !== at.namespace) throw gone();
    return helperOf(at.pid, at.namespace).dial(port, dialSignal);
  };
}

function namespaceOrNone(pid: number): string | undefined {
  try {
    return networkNamespace(pid);
  } catch {
    return undefined;
  }
}
