import { type Clock, notNeeded, within } from "../lib/clock.ts";
import { isAbort } from "../lib/errors.ts";
import type { UpstreamServer } from "./exchange.ts";
import type { ServerHealth } from "./server-health.ts";
import type { UpstreamReply } from "./upstream-message.ts";
import { type Query, rcodes } from "./wire.ts";

/** How the host wants its name servers asked (resolv.conf(5), `options`). */
export interface AskingOptions {
  /** Milliseconds that one server gets. */
  readonly tryMs: number;
  /** Milliseconds that all of them get together. */
  readonly totalMs: number;
  /** How often one that stays silent is asked. */
  readonly attempts: number;
  /** Begins with another one each time. */
  readonly rotate: boolean;
  /** TCP only. */
  readonly tcpOnly: boolean;
}

export interface UpstreamsOptions {
  /** Rejects when the server does not answer. */
  readonly ask: (
    server: UpstreamServer,
    query: Query,
    signal: AbortSignal,
  ) => Promise<UpstreamReply>;
  readonly health: Pick<ServerHealth, "isDown" | "answered" | "suspect">;
  readonly clock: Clock;
  /** Told of each question that a server had no answer for, and why. */
  readonly onFailure?: (server: UpstreamServer, error: unknown) => void;
}

type Outcome =
  | { readonly kind: "answer"; readonly reply: UpstreamReply }
  /** It answers, but not this. */
  | { readonly kind: "refusal"; readonly reply: UpstreamReply }
  | { readonly kind: "silent"; readonly server: UpstreamServer }
  /** It cannot be asked at all. */
  | { readonly kind: "failed" };

/** Servers that are down are asked all at once, but not more than these. */
const mostAtOnce = 4;

/** Puts a question to the host's name servers, until one answers. */
export class Upstreams {
  readonly #options: UpstreamsOptions;
  #turn = 0;

  constructor(options: UpstreamsOptions) {
    this.#options = options;
  }

  /**
   * In their order, those that are up one after the other, those that are down together at the end. One that fails or
   * refuses is followed by the next; those that were silent get another chance when nobody said anything.
   *
   * @returns undefined when nobody answered; the first refusal when all did that. Never rejects.
   */
  async ask(
    servers: readonly UpstreamServer[],
    query: Query,
    asking: AskingOptions,
    signal: AbortSignal,
  ): Promise<UpstreamReply | undefined> {
    const { clock, health } = this.#options;
    const end = clock.monotonic() + asking.totalMs;
    let refusal: UpstreamReply | undefined;
    let left = asking.rotate ? this.#rotated(servers) : servers;
    for (let attempt = 0; attempt < asking.attempts && left.length > 0; attempt += 1) {
      const silent: UpstreamServer[] = [];
      for (const group of this.#groups(left)) {
        const leftMs = end - clock.monotonic();
        if (leftMs <= 0 || signal.aborted) return refusal;
        const outcomes = await this.#askGroup(group, query, Math.min(asking.tryMs, leftMs), signal);
        for (const outcome of outcomes) {
          if (outcome.kind === "answer") return outcome.reply;
          if (outcome.kind === "refusal") refusal ??= outcome.reply;
          if (outcome.kind !== "silent") continue;
          silent.push(outcome.server);
          health.suspect(outcome.server, signal);
        }
      }
      if (refusal !== undefined) return refusal;
      left = silent;
    }
    return undefined;
  }

  #rotated(servers: readonly UpstreamServer[]): readonly UpstreamServer[] {
    this.#turn = (this.#turn + 1) % Math.max(1, servers.length);
    return [...servers.slice(this.#turn), ...servers.slice(0, this.#turn)];
  }

  #groups(servers: readonly UpstreamServer[]): readonly (readonly UpstreamServer[])[] {
    const { health } = this.#options;
    const up = servers.filter((server) => !health.isDown(server)).map((server) => [server]);
    const down = servers.filter((server) => health.isDown(server));
    return down.length > 0 ? [...up, down.slice(0, mostAtOnce)] : up;
  }

  /** Asks them side by side; the first answer ends it. */
  async #askGroup(
    group: readonly UpstreamServer[],
    query: Query,
    ms: number,
    signal: AbortSignal,
  ): Promise<readonly Outcome[]> {
    const [only] = group;
    if (group.length === 1 && only !== undefined) {
      return [await this.#askOne(only, query, ms, signal)];
    }
    const enough = new AbortController();
    const either = AbortSignal.any([signal, enough.signal]);
    return Promise.all(
      group.map(async (server) => {
        const outcome = await this.#askOne(server, query, ms, either);
        if (outcome.kind === "answer") enough.abort(notNeeded);
        return outcome;
      }),
    );
  }

  async #askOne(
    server: UpstreamServer,
    query: Query,
    ms: number,
    signal: AbortSignal,
  ): Promise<Outcome> {
    const { ask, health, onFailure } = this.#options;
    try {
      const reply = await within(signal, ms, (limited) => ask(server, query, limited));
      health.answered(server);
      return refuses(reply) ? { kind: "refusal", reply } : { kind: "answer", reply };
    } catch (error) {
      if (signal.aborted) return { kind: "failed" };
      onFailure?.(server, error);
      return isAbort(error) ? { kind: "silent", server } : { kind: "failed" };
    }
  }
}

/** Another server may know better. */
function refuses({ rcode }: UpstreamReply): boolean {
  return (
    rcode === rcodes.servFail ||
    rcode === rcodes.refused ||
    rcode === rcodes.formErr ||
    rcode === rcodes.notImp ||
    rcode > 15
  );
}
