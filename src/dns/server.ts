import { createSocket, type RemoteInfo, type Socket as DatagramSocket } from "node:dgram";
import { createServer, isIPv6, type Socket } from "node:net";

import { type Clock, notNeeded, within } from "../lib/clock.ts";
import { errorCode, errorMessage } from "../lib/errors.ts";
import { heldBacklog } from "../lib/listen-on.ts";
import type { Logger } from "../lib/log.ts";
import { UnderWay } from "../lib/under-way.ts";
import type { SharedCounts } from "./counts.ts";
import { framed, FrameReader } from "./exchange.ts";
import type { Resolver } from "./resolver.ts";
import type { PassedSocket } from "./types.ts";
import { defaultSourceLimits, SourceLimits, type SourceLimitsOptions } from "./source-limits.ts";

export interface DnsServerOptions {
  readonly resolver: Pick<Resolver, "answer">;
  /** Exactly these are listened on, by UDP and TCP. */
  readonly addresses: readonly string[];
  /** 53 */
  readonly port: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly onListening: () => void;
  /** Told when a reply waits to be sent: its bytes must stay as they are. */
  readonly onUnsent?: () => void;
  /** Milliseconds until another try when an address cannot be had, default 500. */
  readonly retryMs?: number;
  readonly sourceLimits?: SourceLimitsOptions;
  readonly counts?: Pick<SharedCounts, "add" | "addReply">;
  /** Sockets to use in the place of own ones. */
  readonly passed?: readonly PassedSocket[];
}

const maxQueryBytes = 4096;
const maxConnections = 512;
/** Of one address: connections are kept open for a while, and others want some too. */
const maxConnectionsOfOne = 64;
const idleMs = 10_000;
/** A client that asks by TCP and does not read. */
const maxUnreadBytes = 1024 * 1024;
/** Questions of one connection that wait for upstream. */
const maxPipelined = 64;
/** Replies that the kernel does not take are dropped beyond this, as it would. */
const maxUnsentBytes = 4 * 1024 * 1024;
const complaintMs = 60_000;
/** How long an end waits for answers of others, and for the questions of those who have connected. */
const drainMs = 250;

interface Listening {
  /** Nobody new is let in. */
  readonly rest: () => void;
  readonly close: () => Promise<void>;
}
type Protocol = PassedSocket["protocol"];
type At = Pick<PassedSocket, "address"> & Partial<Pick<PassedSocket, "fd">>;

/** The sockets of the name server. An address that the node does not have yet is waited for. */
export class DnsServer {
  readonly #options: DnsServerOptions;
  readonly #limits: SourceLimits;
  readonly #connections = new Map<string, number>();
  readonly #owed = new UnderWay();
  #answering = new AbortController();
  #complained = -Infinity;
  #complainedOfSource = -Infinity;
  /** Questions that were not answered since then because their source had asked too many. */
  #limited = 0;

  constructor(options: DnsServerOptions) {
    this.#options = options;
    this.#limits = new SourceLimits(options.sourceLimits ?? defaultSourceLimits);
  }

  /**
   * Listens until `signal` aborts, then closes everything. A socket that breaks is made again.
   *
   * @throws {Error} a passed one breaks: there is no second one here.
   */
  async run(signal: AbortSignal): Promise<void> {
    const broken = new AbortController();
    const stop = AbortSignal.any([signal, broken.signal]);
    this.#answering = new AbortController();
    const open: Listening[] = [];
    try {
      for (const { address, fd, protocol } of this.#options.passed ?? []) {
        open.push(await this.#listen(protocol, { address, fd }, broken));
      }
      await this.#listenUntil(stop);
    } finally {
      await this.#close(open);
    }
    if (!signal.aborted) throw new Error("a socket that was passed to the name server broke");
  }

  #isPassed(address: string, protocol: Protocol): boolean {
    const { passed = [] } = this.#options;
    return passed.some((socket) => socket.address === address && socket.protocol === protocol);
  }

  #listen(protocol: Protocol, at: At, broken: AbortController): Promise<Listening> {
    return protocol === "udp" ? this.#listenUDP(at, broken) : this.#listenTCP(at, broken);
  }

  /** Whoever has asked is answered first, when that does not take long. */
  async #close(open: readonly Listening[]): Promise<void> {
    for (const { rest } of open) rest();
    const never = new AbortController().signal;
    await within(never, drainMs, async (limited) => this.#owed.settled(limited));
    this.#answering.abort(notNeeded);
    await Promise.all(open.map(({ close }) => close()));
  }

  /** The same on sockets of its own. */
  async #listenUntil(signal: AbortSignal): Promise<void> {
    const { clock, logger, onListening, retryMs = 500 } = this.#options;
    let said = "";
    while (!signal.aborted) {
      const broken = new AbortController();
      const stop = AbortSignal.any([signal, broken.signal]);
      const open: Listening[] = [];
      try {
        for (const address of this.#options.addresses) {
          for (const protocol of ["udp", "tcp"] as const) {
            if (this.#isPassed(address, protocol)) continue;
            open.push(await this.#listen(protocol, { address }, broken));
          }
        }
        said = "";
        onListening();
        await aborted(stop);
      } catch (error) {
        const message = explain(error);
        if (message !== said) {
          said = message;
          // The address comes with the node's pod network: at the start this is no trouble.
          const level = errorCode(error) === "EADDRNOTAVAIL" ? "debug" : "error";
          logger.log(level, "the name server cannot listen, will retry", { error: message });
        }
      } finally {
        if (signal.aborted) await this.#close(open);
        else await Promise.all(open.map(({ close }) => close()));
      }
      if (!signal.aborted) await clock.sleep(retryMs, signal).catch(() => undefined);
    }
  }

  async #listenUDP({ address, fd }: At, broken: AbortController): Promise<Listening> {
    const { signal } = this.#answering;
    const six = isIPv6(address);
    const socket = createSocket({
      type: six ? "udp6" : "udp4",
      ipv6Only: six,
      // A burst of questions must find room while a garbage collection runs; the kernel may give less. Who passed a socket
      // was allowed more.
      ...(fd === undefined ? { recvBufferSize: 1024 * 1024 } : {}),
      // Replies go to addresses only; Node would ask its own resolver for each.
      lookup: (host, _options, callback) => callback(null, host, six ? 6 : 4),
    });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    socket.on("error", (error) => {
      reject(error);
      this.#options.logger.log("debug", "socket error", { error: errorMessage(error) });
      broken.abort();
    });
    socket.on("listening", resolve);
    const send = this.#sender(socket, signal);
    socket.on("message", (message, from) => this.#onDatagram(message, from, send, signal));
    if (fd === undefined) socket.bind({ address, port: this.#options.port, exclusive: true });
    else socket.bind({ fd, exclusive: true });
    const close = (): Promise<void> =>
      new Promise((done) => {
        try {
          socket.close(done);
        } catch {
          // It closed itself when it broke.
          done();
        }
      });
    try {
      await promise;
    } catch (error) {
      await close();
      throw error;
    }
    return { rest: () => undefined, close };
  }

  #onDatagram(
    message: Buffer,
    from: RemoteInfo,
    send: (reply: Buffer | undefined, to: RemoteInfo) => void,
    signal: AbortSignal,
  ): void {
    const { counts } = this.#options;
    counts?.add("udp");
    if (!this.#mayAsk(from.address)) return;
    // Port 0 cannot be answered.
    if (message.length > maxQueryBytes || from.port === 0) {
      counts?.add("dropped");
      return;
    }
    const answer = this.#answer(message, "udp", signal);
    if (answer instanceof Promise) {
      void answer.then((reply) => send(reply, from)).finally(this.#owed.begin());
    } else send(answer, from);
  }

  #sender(
    socket: DatagramSocket,
    signal: AbortSignal,
  ): (reply: Buffer | undefined, to: RemoteInfo) => void {
    const { counts, onUnsent } = this.#options;
    let unsentBytes = 0;
    return (reply, to) => {
      if (signal.aborted) return;
      if (reply === undefined) {
        counts?.add("dropped");
        return;
      }
      if (unsentBytes > maxUnsentBytes) {
        unsentBytes = socket.getSendQueueSize();
        if (unsentBytes > maxUnsentBytes) return;
      }
      // Without a callback: what cannot be sent is lost as any packet may be, and the asker asks again.
      socket.send(reply, to.port, to.address);
      counts?.addReply(reply);
      // Usually the kernel has taken it by now.
      unsentBytes = socket.getSendQueueSize();
      if (unsentBytes > 0) onUnsent?.();
    };
  }

  /** Whether the address may ask one more; says so when it may not. */
  #mayAsk(address: string): boolean {
    const { clock, counts, logger } = this.#options;
    const now = clock.monotonic();
    if (this.#limits.take(address, now)) return true;
    counts?.add("limited");
    this.#limited += 1;
    if (now - this.#complainedOfSource >= complaintMs) {
      this.#complainedOfSource = now;
      logger.log("warn", "an address asks more than the name server answers one", {
        address,
        unanswered: this.#limited,
      });
      this.#limited = 0;
    }
    return false;
  }

  #answer(
    message: Buffer,
    transport: "udp" | "tcp",
    signal: AbortSignal,
  ): Buffer | undefined | Promise<Buffer | undefined> {
    const failed = (error: unknown): undefined => {
      const now = this.#options.clock.monotonic();
      if (now - this.#complained < complaintMs) return;
      this.#complained = now;
      this.#options.logger.log("error", "a question could not be answered", {
        error: errorMessage(error),
      });
    };
    try {
      const answer = this.#options.resolver.answer(message, transport, signal);
      return answer instanceof Promise ? answer.catch(failed) : answer;
    } catch (error) {
      return failed(error);
    }
  }

  async #listenTCP({ address, fd }: At, broken: AbortController): Promise<Listening> {
    const { signal } = this.#answering;
    const open = new Set<Socket>();
    const server = createServer({ noDelay: true }, (socket) => {
      open.add(socket);
      socket.on("close", () => open.delete(socket));
      this.#onConnection(socket, signal);
    });
    server.maxConnections = maxConnections;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.on("error", (error) => {
      reject(error);
      broken.abort();
    });
    const own = { host: address, port: this.#options.port, ipv6Only: isIPv6(address) };
    if (fd === undefined) server.listen(own, resolve);
    else server.listen({ fd }, heldBacklog, resolve);
    await promise;
    const closed = new Promise<void>((done) => server.once("close", done));
    return {
      rest: () => server.close(),
      close: async () => {
        if (server.listening) server.close();
        for (const socket of open) socket.destroy();
        await closed;
      },
    };
  }

  #onConnection(socket: Socket, signal: AbortSignal): void {
    const { remoteAddress: address = "" } = socket;
    const open = this.#connections.get(address) ?? 0;
    if (open >= maxConnectionsOfOne) {
      socket.destroy();
      return;
    }
    this.#connections.set(address, open + 1);
    socket.on("close", () => {
      const left = (this.#connections.get(address) ?? 1) - 1;
      if (left > 0) this.#connections.set(address, left);
      else this.#connections.delete(address);
    });
    const frames = new FrameReader(maxQueryBytes);
    let waiting = 0;
    // Who has come wants to ask.
    const asked = this.#owed.begin();
    socket.once("close", asked);
    socket.setTimeout(idleMs, () => socket.destroy());
    socket.on("error", () => socket.destroy());
    const send = (reply: Buffer | undefined): void => {
      if (reply === undefined) this.#options.counts?.add("dropped");
      if (reply === undefined || socket.destroyed) return;
      this.#options.counts?.addReply(reply);
      socket.write(framed(reply), asked);
      if (socket.writableLength > maxUnreadBytes) socket.destroy();
    };
    socket.on("data", (chunk: Buffer) => {
      for (const message of frames.push(chunk)) {
        this.#options.counts?.add("tcp");
        if (!this.#mayAsk(address)) {
          socket.destroy();
          return;
        }
        const answer = this.#answer(message, "tcp", signal);
        if (!(answer instanceof Promise)) {
          send(answer);
          continue;
        }
        waiting += 1;
        if (waiting > maxPipelined) socket.destroy();
        const through = this.#owed.begin();
        void answer.then(send).finally(() => {
          waiting -= 1;
          through();
        });
      }
      if (frames.broken) socket.destroy();
    });
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

function explain(error: unknown): string {
  const message = errorMessage(error);
  if (errorCode(error) === "EADDRINUSE") {
    return `${message}: another name server has that address and port (\`ss -lnup sport = :53\` names it)`;
  }
  if (errorCode(error) === "EACCES") return `${message}: ports below 1024 need root`;
  return message;
}
