import type { ClusterRecords, Lookup } from "./cluster-records.ts";
import { type Forwarded, type Forwarder, maxUpstreamTTL } from "./forwarder.ts";
import type { DnsRecord } from "./types.ts";
import { addressRecords, passOn, rcodeOf } from "./upstream-message.ts";
import {
  encodeName,
  encodeReply,
  parseQuery,
  type Query,
  rcodes,
  type Reply,
  udpLimit,
} from "./wire.ts";

type Alias = Extract<DnsRecord, { readonly type: "CNAME" }>;

const tcpLimit = 65_535;
/** Aliases of aliases; a circle ends here too. */
const maxAliases = 8;

export interface ResolverOptions {
  /** Told each name that is asked for; true = that question was our own and came back to us. */
  readonly isOwnQuestion?: (name: string) => boolean;
  readonly records: Pick<ClusterRecords, "lookup">;
  readonly forwarder: Pick<Forwarder, "cached" | "forward">;
}

/** Answers questions: the cluster's names at once, all others by asking upstream. */
export class Resolver {
  readonly #options: ResolverOptions;
  #turn = 0;

  constructor(options: ResolverOptions) {
    this.#options = options;
  }

  /**
   * The answer to one message, at once where possible. Undefined = nothing is to be sent. Never throws or rejects for
   * what stands in the message.
   */
  answer(
    message: Buffer,
    transport: "udp" | "tcp",
    signal: AbortSignal,
  ): Buffer | undefined | Promise<Buffer | undefined> {
    const parsed = parseQuery(message);
    if (parsed.kind === "dropped") return undefined;
    if (parsed.kind === "refused") return parsed.reply;
    const { query } = parsed;
    if (this.#options.isOwnQuestion?.(query.name) === true) {
      return encodeReply(query, { rcode: rcodes.refused }, udpLimit(query));
    }
    const limit = transport === "tcp" ? tcpLimit : udpLimit(query);
    const lookup = this.#options.records.lookup(query.name, query.type);
    if (lookup.kind === "outside") return this.#forward(query, limit, signal);
    const alias = aliasOf(lookup, query.type);
    if (alias === undefined) return encodeReply(query, this.#replyTo(lookup), limit);
    return this.#follow(query, alias, signal).then((reply) => encodeReply(query, reply, limit));
  }

  #replyTo(lookup: Exclude<Lookup, { kind: "outside" }>): Reply {
    switch (lookup.kind) {
      case "unknown":
        return { rcode: rcodes.servFail };
      case "nxdomain":
        return { rcode: rcodes.nxDomain, authoritative: true, authorities: [lookup.soa] };
      case "found":
        return {
          rcode: rcodes.noError,
          authoritative: true,
          answers: this.#rotated(lookup.records),
          authorities: lookup.records.length === 0 ? [lookup.soa] : [],
          additionals: lookup.additionals,
        };
    }
  }

  /** Many resolvers use the first address only. */
  #rotated(records: readonly DnsRecord[]): readonly DnsRecord[] {
    if (records.length < 2) return records;
    this.#turn = (this.#turn + 1) % 0xffff;
    const start = this.#turn % records.length;
    return start === 0 ? records : [...records.slice(start), ...records.slice(0, start)];
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
        const { rcode, records } = await this.#askFor(target, query, signal);
        answers.push(...records);
        return done(rcode);
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

  async #askFor(
    name: string,
    query: Query,
    signal: AbortSignal,
  ): Promise<{ readonly rcode: number; readonly records: readonly DnsRecord[] }> {
    // Only addresses are looked for behind an alias; for anything else the alias itself is the answer.
    if (query.type !== "A" && query.type !== "AAAA") return { rcode: rcodes.noError, records: [] };
    const question = encodeName(name, query.type);
    const forwarded = await this.#options.forwarder.forward({ ...query, question, name }, signal);
    if (forwarded === undefined) return { rcode: rcodes.servFail, records: [] };
    const { message } = forwarded.reply;
    const records = addressRecords(message, maxUpstreamTTL);
    return records === undefined
      ? { rcode: rcodes.servFail, records: [] }
      : { rcode: rcodeOf(message), records };
  }
}

/** The alias that stands in the place of what was asked for. */
function aliasOf(lookup: Lookup, type: string): Alias | undefined {
  if (lookup.kind !== "found" || type === "CNAME" || type === "ANY") return undefined;
  return lookup.records.find((record) => record.type === "CNAME");
}
