import type { ClusterRecords, Lookup } from "./cluster-records.ts";
import type { SharedCounts } from "./counts.ts";
import { type Forwarded, type Forwarder, maxUpstreamTTL } from "./forwarder.ts";
import { KnownReplies, type Turning } from "./known-replies.ts";
import type { DnsRecord } from "./types.ts";
import { type BehindAlias, behindAlias, isTruncated, passOn } from "./upstream-message.ts";
import {
  encodeName,
  encodeReply,
  maxMessageBytes,
  parseQuery,
  type Query,
  rcodes,
  type Reply,
  udpLimit,
} from "./wire.ts";

type Alias = Extract<DnsRecord, { readonly type: "CNAME" }>;

/** A pointer to the name, type, class, TTL and length. */
const leastRecordBytes = 12;
/** Aliases of aliases; a circle ends here too. */
const maxAliases = 8;

export interface ResolverOptions {
  /** Told each name that is asked for; true = that question was our own and came back to us. */
  readonly isOwnQuestion?: (name: string) => boolean;
  readonly records: Pick<ClusterRecords, "lookup">;
  readonly forwarder: Pick<Forwarder, "cached" | "forward">;
  readonly counts?: Pick<SharedCounts, "add">;
}

/** Answers questions: the cluster's names at once, all others by asking upstream. */
export class Resolver {
  readonly #options: ResolverOptions;
  readonly #known = new KnownReplies();
  #turn = 0;

  constructor(options: ResolverOptions) {
    this.#options = options;
  }

  /** What names stand for has changed. */
  forget(): void {
    this.#known.clear();
  }

  /** Never again writes to a reply that it has given out: one of them waits to be sent. */
  leaveReplies(): void {
    this.#known.leave();
  }

  /**
   * The answer to one message, at once where possible. Undefined = nothing is to be sent. Never throws or rejects for
   * what stands in the message. By UDP the buffer may come again with the next answer: it is to be sent before.
   */
  answer(
    message: Buffer,
    transport: "udp" | "tcp",
    signal: AbortSignal,
  ): Buffer | undefined | Promise<Buffer | undefined> {
    if (transport === "udp") {
      const known = this.#known.get(message);
      if (known !== undefined) {
        this.#options.counts?.add("known");
        return known;
      }
    }
    const parsed = parseQuery(message);
    if (parsed.kind === "dropped") return undefined;
    if (parsed.kind === "refused") return parsed.reply;
    const { query } = parsed;
    if (this.#options.isOwnQuestion?.(query.name) === true) {
      return encodeReply(query, { rcode: rcodes.refused }, udpLimit(query));
    }
    const limit = transport === "tcp" ? maxMessageBytes : udpLimit(query);
    const lookup = this.#options.records.lookup(query.name, query.type);
    if (lookup.kind === "outside") return this.#forward(query, limit, signal);
    const alias = aliasOf(lookup, query.type);
    if (alias !== undefined) {
      return this.#follow(query, alias, signal).then((reply) => encodeReply(query, reply, limit));
    }
    const reply = encodeReply(query, this.#replyTo(lookup, limit), limit);
    if (transport === "udp") this.#keep(message, reply, query, lookup);
    return reply;
  }

  #keep(message: Buffer, reply: Buffer, query: Query, lookup: Lookup): void {
    if (isTruncated(reply)) return;
    if (lookup.kind === "nxdomain" || (lookup.kind === "found" && lookup.records.length < 2)) {
      this.#known.set(message, reply, undefined);
    } else if (lookup.kind === "found") {
      const turning = turningOf(lookup.records, query);
      if (turning !== undefined) this.#known.set(message, reply, turning);
    }
  }

  #replyTo(lookup: Exclude<Lookup, { kind: "outside" }>, limit: number): Reply {
    switch (lookup.kind) {
      case "unknown":
        return { rcode: rcodes.servFail };
      case "nxdomain":
        return { rcode: rcodes.nxDomain, authoritative: true, authorities: [lookup.soa] };
      case "found":
        return {
          rcode: rcodes.noError,
          authoritative: true,
          // More than these do not fit, and the others need not be gone through.
          answers: this.#rotated(lookup.records, Math.ceil(limit / leastRecordBytes)),
          authorities: lookup.records.length === 0 ? [lookup.soa] : [],
          additionals: lookup.additionals,
        };
    }
  }

  /** Many resolvers use the first address only. */
  #rotated(records: readonly DnsRecord[], most = Infinity): readonly DnsRecord[] {
    if (records.length < 2) return records;
    this.#turn = (this.#turn + 1) % 0xffff;
    const start = this.#turn % records.length;
    if (start === 0 && records.length <= most) return records;
    const ahead = records.slice(start, start + most);
    const behind = records.slice(0, Math.min(start, most - ahead.length));
    return behind.length === 0 ? ahead : [...ahead, ...behind];
  }

  #forward(query: Query, limit: number, signal: AbortSignal): Buffer | Promise<Buffer> {
    const pass = (forwarded: Forwarded | undefined): Buffer => {
      if (forwarded === undefined) return encodeReply(query, { rcode: rcodes.servFail }, limit);
      const { reply, ageSeconds } = forwarded;
      return passOn(reply, query, { ageSeconds, maxTTL: maxUpstreamTTL, limit });
    };
    const cached = this.#options.forwarder.cached(query);
    return cached === undefined
      ? this.#options.forwarder.forward(query, signal).then(pass)
      : pass(cached);
  }

  /** What stands behind an ExternalName: in the cluster or outside. */
  async #follow(query: Query, first: Alias, signal: AbortSignal): Promise<Reply> {
    const answers: DnsRecord[] = [first];
    const done = (rcode: number, authorities: readonly DnsRecord[] = []): Reply => {
      return { rcode, authoritative: true, answers, authorities };
    };
    for (let target = first.data; answers.length <= maxAliases;) {
      const lookup = this.#options.records.lookup(target, query.type);
      if (lookup.kind === "outside") {
        const behind = await this.#askFor(target, query, signal);
        answers.push(...behind.answers);
        return done(behind.rcode, behind.authorities);
      }
      if (lookup.kind === "unknown") return done(rcodes.servFail);
      if (lookup.kind === "nxdomain") return done(rcodes.nxDomain, [lookup.soa]);
      answers.push(...this.#rotated(lookup.records));
      const next = aliasOf(lookup, query.type);
      if (next === undefined) {
        return done(rcodes.noError, lookup.records.length === 0 ? [lookup.soa] : []);
      }
      target = next.data;
    }
    return done(rcodes.servFail);
  }

  async #askFor(name: string, query: Query, signal: AbortSignal): Promise<BehindAlias> {
    const nothing = (rcode: number): BehindAlias => ({ rcode, answers: [], authorities: [] });
    // Only addresses are looked for behind an alias; for anything else the alias itself is the answer.
    if (query.type !== "A" && query.type !== "AAAA") return nothing(rcodes.noError);
    const question = encodeName(name, query.type);
    const forwarded = await this.#options.forwarder.forward({ ...query, question, name }, signal);
    if (forwarded === undefined) return nothing(rcodes.servFail);
    const { reply, ageSeconds } = forwarded;
    const behind = behindAlias(reply.message, { maxTTL: maxUpstreamTTL, ageSeconds });
    return behind ?? nothing(rcodes.servFail);
  }
}

/** The alias that stands in the place of what was asked for. */
function aliasOf(lookup: Lookup, type: string): Alias | undefined {
  if (lookup.kind !== "found" || type === "CNAME" || type === "ANY") return undefined;
  // Nothing stands beside one (RFC 1034, 3.6.2).
  const [first] = lookup.records;
  return first?.type === "CNAME" ? first : undefined;
}

/** How answers of one length take turns; undefined when they are not all addresses of the name that was asked for. */
function turningOf(records: readonly DnsRecord[], query: Query): Turning | undefined {
  const [first] = records;
  if (first === undefined || (first.type !== "A" && first.type !== "AAAA")) return undefined;
  const alike = records.every(({ type, name }) => type === first.type && name === query.name);
  if (!alike) return undefined;
  // A pointer to the name, type, class, TTL and length, and the address.
  const recordBytes = 12 + (first.type === "A" ? 4 : 16);
  return { recordBytes, count: records.length, questionBytes: query.question.length };
}
