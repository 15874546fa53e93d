import type { Clock } from "../lib/clock.ts";
import { errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { UpstreamServer } from "./exchange.ts";
import type { ForwardEvent } from "./forward-event.ts";
import { ReplyCache } from "./reply-cache.ts";
import { ServerDialogue, serverKey } from "./server-dialogue.ts";
import { ServerHealth } from "./server-health.ts";
import type { UpstreamReply } from "./upstream-message.ts";
import { type AskingOptions, Upstreams } from "./upstreams.ts";
import { type Query, rcodes } from "./wire.ts";

export { maxUpstreamTTL } from "./server-dialogue.ts";

export interface ForwarderOptions {
  /** Whom to ask, in this order; empty = nobody. */
  readonly servers: () => readonly UpstreamServer[] | Promise<readonly UpstreamServer[]>;
  /** How to ask them; what it leaves open is as without it. */
  readonly asking?: () => Partial<AskingOptions>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** [0, 1), not to be guessed: it makes the ids of questions. */
  readonly random: () => number;
  /** Milliseconds that one server gets, default 2000. */
  readonly tryMs?: number;
  /** Milliseconds that all of them get together, default 5000: then resolvers ask again anyway. */
  readonly totalMs?: number;
  /** Different questions under way at once, default 1000 as with kubeadm; more are refused at once. */
  readonly mostUnderWay?: number;
  /** Askers who wait at once, default 4096: many may wait for one question. */
  readonly mostWaiting?: number;
  /** Told when a server begins to be silent; a circle of name servers looks like that. */
  readonly onSuspect?: (server: UpstreamServer, signal: AbortSignal) => void;
  readonly count?: (event: ForwardEvent) => void;
  /** Told how long each answer of a server took. */
  readonly onAnswered?: (seconds: number) => void;
}

const cacheBytes = 4 * 1024 * 1024;
/** RFC 9520: what could not be found out is not asked again at once, by however many. */
const failureSeconds = 1;
const mostFailures = 2048;
const complaintMs = 60_000;
const defaultUnderWay = 1000;
/** Of the usual time, when the room for questions is full. */
const leastPatience = 0.2;
const mostProbeMs = 1000;

export interface Forwarded {
  readonly reply: UpstreamReply;
  readonly ageSeconds: number;
}

/**
 * Passes questions on to the host's name servers. The same question from many is asked once; replies are kept for at
 * most half a minute, failures for a second. Nothing in a reply is ever used for another question.
 */
export class Forwarder {
  readonly #options: ForwarderOptions;
  readonly #cache = new ReplyCache(cacheBytes);
  readonly #underWay = new Map<string, Promise<UpstreamReply | undefined>>();
  /** Monotonic milliseconds until which nobody is asked, by question. */
  readonly #failures = new Map<string, number>();
  readonly #dialogue: ServerDialogue;
  readonly #health: ServerHealth;
  readonly #upstreams: Upstreams;
  #waiting = 0;
  #complained = -Infinity;

  constructor(options: ForwarderOptions) {
    this.#options = options;
    const { asking, clock, count, logger, onAnswered, onSuspect, random } = options;
    this.#dialogue = new ServerDialogue({
      clock,
      random,
      onStray: () => {
        count?.("stray");
        this.#complain("datagrams that answer no question of ours are dropped", {});
      },
      tcpOnly: () => asking?.().tcpOnly ?? false,
    });
    const ask = this.#dialogue.ask.bind(this.#dialogue);
    this.#health = new ServerHealth({
      ask,
      clock,
      probeMs: Math.min(mostProbeMs, options.tryMs ?? mostProbeMs),
      ...(onSuspect === undefined ? {} : { onSuspect }),
      onProbeFailed: () => count?.("probeFailed"),
      onChange: (server, down) =>
        logger.log(down ? "warn" : "info", "a name server of the host is down or up again", {
          server: serverKey(server),
          down,
        }),
    });
    this.#upstreams = new Upstreams({
      ask: async (server, query, signal) => {
        count?.("forwarded");
        const started = clock.monotonic();
        const reply = await ask(server, query, signal);
        onAnswered?.((clock.monotonic() - started) / 1000);
        return reply;
      },
      health: this.#health,
      clock,
      onFailure: (server, error) =>
        this.#complain("a name server of the host does not answer", {
          server: serverKey(server),
          error: errorMessage(error),
        }),
    });
  }

  /** A reply that is at hand. */
  cached(query: Query): Forwarded | undefined {
    const found = this.#cache.get(cacheKey(query), this.#options.clock.monotonic());
    if (found !== undefined) {
      const { rcode, places } = found.reply;
      const positive = rcode === rcodes.noError && places.some((it) => it.section === "answer");
      this.#options.count?.(positive ? "cacheSuccess" : "cacheDenial");
    }
    return found;
  }

  /** @returns undefined when nobody answered; never rejects. */
  async forward(query: Query, signal: AbortSignal): Promise<Forwarded | undefined> {
    const cached = this.cached(query);
    if (cached !== undefined) return cached;
    const { count, mostUnderWay = defaultUnderWay, mostWaiting = 4096 } = this.#options;
    const key = cacheKey(query);
    count?.("cacheMiss");
    if (this.#failedLately(key)) return undefined;
    let asking = this.#underWay.get(key);
    const full = asking === undefined && this.#underWay.size >= mostUnderWay;
    if (full || this.#waiting >= mostWaiting) {
      count?.("rejected");
      this.#complain("too many questions wait for an answer from upstream", {});
      return undefined;
    }
    if (asking === undefined) {
      asking = this.#ask(query, key, signal).finally(() => this.#underWay.delete(key));
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

  /** Forgets all replies, and what is known of the servers: others may say something else. */
  forget(): void {
    this.#cache.clear();
    this.#failures.clear();
    this.#health.forget();
    this.#dialogue.forget();
  }

  /** Until everything that was begun has ended, after the signals of the questions have aborted. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#underWay.values());
    await this.#health.settled();
  }

  async #ask(query: Query, key: string, signal: AbortSignal): Promise<UpstreamReply | undefined> {
    const { clock } = this.#options;
    try {
      const servers = await this.#options.servers();
      const reply = await this.#upstreams.ask(servers, query, this.#asking(), signal);
      if (signal.aborted) return reply;
      if (reply === undefined) this.#failed(key);
      else this.#cache.set(key, kept(reply), clock.monotonic());
      return reply;
    } catch (error) {
      if (!signal.aborted) {
        this.#complain("questions cannot be passed on", { error: errorMessage(error) });
      }
      return undefined;
    }
  }

  #asking(): AskingOptions {
    const { asking, mostUnderWay = defaultUnderWay, totalMs = 5000, tryMs = 2000 } = this.#options;
    const all = { tryMs, totalMs, attempts: 2, rotate: false, tcpOnly: false, ...asking?.() };
    // When there is hardly any room left, names that nobody answers must not keep it from those that need a moment.
    const room = 2 * (1 - this.#underWay.size / mostUnderWay);
    return room >= 1 ? all : { ...all, totalMs: all.totalMs * Math.max(room, leastPatience) };
  }

  #failed(key: string): void {
    for (const oldest of this.#failures.keys()) {
      if (this.#failures.size < mostFailures) break;
      this.#failures.delete(oldest);
    }
    this.#failures.delete(key);
    this.#failures.set(key, this.#options.clock.monotonic() + failureSeconds * 1000);
  }

  #failedLately(key: string): boolean {
    const until = this.#failures.get(key);
    if (until === undefined) return false;
    if (until > this.#options.clock.monotonic()) return true;
    this.#failures.delete(key);
    return false;
  }

  /** An outage must not fill the disk with log lines. */
  #complain(message: string, fields: Readonly<Record<string, string>>): void {
    const now = this.#options.clock.monotonic();
    if (now - this.#complained < complaintMs) return;
    this.#complained = now;
    this.#options.logger.log("warn", message, fields);
  }
}

/** A refusal is kept too, for as long as a failure. */
function kept(reply: UpstreamReply): UpstreamReply {
  const final = reply.rcode === rcodes.noError || reply.rcode === rcodes.nxDomain;
  return final ? reply : { ...reply, ttl: failureSeconds };
}

/** All that makes an answer differ: name in any case, type, class, flags, and whether DNSSEC is wanted. */
function cacheKey({ question, passedFlags, edns }: Query): string {
  const name = question.toString("latin1", 0, question.length - 4).toLowerCase();
  const typeAndClass = question.toString("latin1", question.length - 4);
  return `${name}${typeAndClass}${passedFlags + (edns?.dnssecOK === true ? 1 : 0)}`;
}
