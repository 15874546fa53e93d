import type { Clock } from "../lib/clock.ts";
import { errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { askTCP, askUDP, type Outgoing, type UpstreamServer } from "./exchange.ts";
import { ReplyCache } from "./reply-cache.ts";
import { isTruncated, rcodeOf, readReply, type UpstreamReply } from "./upstream-message.ts";
import { encodeQuestion, type Query, rcodes } from "./wire.ts";

export interface ForwarderOptions {
  /** Whom to ask, in this order; empty = nobody. */
  readonly servers: () => readonly UpstreamServer[] | Promise<readonly UpstreamServer[]>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** [0, 1), not to be guessed: it makes the ids of questions. */
  readonly random: () => number;
  /** Milliseconds that one server gets, default 2000. */
  readonly tryMs?: number;
  /** Milliseconds that all of them get together, default 5000: then resolvers ask again anyway. */
  readonly totalMs?: number;
  /** Different questions under way at once, default 512; more are refused at once. */
  readonly mostUnderWay?: number;
  /** Askers who wait at once, default 4096: many may wait for one question. */
  readonly mostWaiting?: number;
}

/** Seconds that anything from upstream is kept, as in kubeadm's CoreDNS. */
export const maxUpstreamTTL = 30;
const cacheBytes = 4 * 1024 * 1024;
const avoidMs = 10_000;
const complaintMs = 60_000;

export interface Forwarded {
  readonly reply: UpstreamReply;
  readonly ageSeconds: number;
}

/**
 * Passes questions on to the host's name servers. The same question from many is asked once; replies are kept for at
 * most half a minute; a server that did not answer is asked last for ten seconds.
 */
export class Forwarder {
  readonly #options: ForwarderOptions;
  readonly #cache = new ReplyCache(cacheBytes);
  readonly #underWay = new Map<string, Promise<UpstreamReply | undefined>>();
  /** Monotonic milliseconds until which a server is asked last. */
  readonly #avoid = new Map<string, number>();
  #waiting = 0;
  #complained = -Infinity;

  constructor(options: ForwarderOptions) {
    this.#options = options;
  }

  /** A reply that is at hand. */
  cached(query: Query): Forwarded | undefined {
    return this.#cache.get(cacheKey(query), this.#options.clock.monotonic());
  }

  /** @returns undefined when nobody answered; never rejects. */
  async forward(query: Query, signal: AbortSignal): Promise<Forwarded | undefined> {
    const cached = this.cached(query);
    if (cached !== undefined) return cached;
    const { mostUnderWay = 512, mostWaiting = 4096 } = this.#options;
    const key = cacheKey(query);
    let asking = this.#underWay.get(key);
    const full = asking === undefined && this.#underWay.size >= mostUnderWay;
    if (full || this.#waiting >= mostWaiting) {
      this.#complain("too many questions wait for an answer from upstream", {});
      return undefined;
    }
    if (asking === undefined) {
      asking = this.#ask(query, signal).finally(() => this.#underWay.delete(key));
      this.#underWay.set(key, asking);
    }
    this.#waiting += 1;
    try {
      const reply = await asking;
      return reply === undefined ? undefined : { reply, ageSeconds: 0 };
    } finally {
      this.#waiting -= 1;
    }
  }

  /** Forgets all replies: other servers may say something else. */
  forget(): void {
    this.#cache.clear();
    this.#avoid.clear();
  }

  async #ask(query: Query, signal: AbortSignal): Promise<UpstreamReply | undefined> {
    const { clock, totalMs = 5000 } = this.#options;
    try {
      const servers = this.#inOrder(await this.#options.servers());
      const end = clock.monotonic() + totalMs;
      let refusal: UpstreamReply | undefined;
      for (const server of servers) {
        const leftMs = end - clock.monotonic();
        if (leftMs <= 0 || signal.aborted) break;
        const reply = await this.#tryServer(server, query, leftMs, signal);
        if (reply === undefined) continue;
        const rcode = rcodeOf(reply.message);
        if (rcode !== rcodes.servFail && rcode !== rcodes.refused) {
          this.#cache.set(cacheKey(query), reply, clock.monotonic());
          return reply;
        }
        // Another one may know better.
        refusal ??= reply;
      }
      return refusal;
    } catch (error) {
      if (!signal.aborted) {
        this.#complain("questions cannot be passed on", { error: errorMessage(error) });
      }
      return undefined;
    }
  }

  #inOrder(servers: readonly UpstreamServer[]): readonly UpstreamServer[] {
    const now = this.#options.clock.monotonic();
    const avoided = (server: UpstreamServer): boolean =>
      (this.#avoid.get(serverKey(server)) ?? 0) > now;
    return [
      ...servers.filter((server) => !avoided(server)),
      ...servers.filter((server) => avoided(server)),
    ];
  }

  async #tryServer(
    server: UpstreamServer,
    query: Query,
    leftMs: number,
    signal: AbortSignal,
  ): Promise<UpstreamReply | undefined> {
    const { clock, tryMs = 2000 } = this.#options;
    const stop = new AbortController();
    const either = AbortSignal.any([signal, stop.signal]);
    const patience = clock.sleep(Math.min(tryMs, leftMs), either).then(
      () => stop.abort(new Error("no answer in time")),
      () => undefined,
    );
    try {
      const reply = await this.#exchange(server, query, either);
      this.#avoid.delete(serverKey(server));
      return reply;
    } catch (error) {
      if (signal.aborted) return undefined;
      this.#avoid.set(serverKey(server), clock.monotonic() + avoidMs);
      this.#complain("a name server of the host does not answer", {
        server: serverKey(server),
        error: errorMessage(error),
      });
      return undefined;
    } finally {
      stop.abort();
      await patience;
    }
  }

  async #exchange(
    server: UpstreamServer,
    query: Query,
    signal: AbortSignal,
  ): Promise<UpstreamReply> {
    const { question } = query;
    const outgoing = (): Outgoing => {
      const id = Math.floor(this.#options.random() * 65_536);
      return { id, question, message: encodeQuestion(query, id) };
    };
    const short = await askUDP(server, outgoing(), signal);
    const reply = readReply(short, question, maxUpstreamTTL);
    if (reply !== undefined && !isTruncated(short)) return reply;
    try {
      const long = await askTCP(server, outgoing(), signal);
      const whole = readReply(long, question, maxUpstreamTTL);
      if (whole !== undefined) return whole;
    } catch (error) {
      // A server without TCP: what it said is marked as cut, and that is the best there is.
      if (reply === undefined || signal.aborted) throw error;
    }
    if (reply === undefined) throw new Error("the answer is malformed");
    return reply;
  }

  /** An outage must not fill the disk with log lines. */
  #complain(message: string, fields: Readonly<Record<string, string>>): void {
    const now = this.#options.clock.monotonic();
    if (now - this.#complained < complaintMs) return;
    this.#complained = now;
    this.#options.logger.log("warn", message, fields);
  }
}

function serverKey({ address, port }: UpstreamServer): string {
  return `${address} ${port}`;
}

/** All that makes an answer differ: name in any case, type, class, flags, and whether EDNS and DNSSEC are wanted. */
function cacheKey({ question, passedFlags, edns }: Query): string {
  const options = edns === undefined ? 0 : edns.dnssecOK ? 2 : 1;
  const name = question.toString("latin1", 0, question.length - 4).toLowerCase();
  return `${name}${question.toString("latin1", question.length - 4)}${passedFlags + options}`;
}
