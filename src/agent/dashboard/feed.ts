import { jitteredBackoffMs } from "../../lib/backoff.ts";
import type { Clock } from "../../lib/clock.ts";
import { isAbort } from "../../lib/errors.ts";
import type { Answer } from "../local/local-client.ts";
import type { FeedMessage, Link } from "./page/model/messages.ts";
import { Sections } from "./sections.ts";
import { UsageHistory } from "./usage-history.ts";

/** How often the agent is asked while nobody looks: enough for the plots, and next to nothing for the agent. */
const unwatchedMs = 10_000;
const backoff = { baseMs: 500, maxMs: 5000 } as const;

/** Ways to ask the agent, wherever it is at the moment. Both reject only when `signal` aborts. */
export interface AgentAsked {
  readonly ask: (signal: AbortSignal) => Promise<Answer>;
  /** Ends with an answer that says why there are no more. */
  readonly follow: (signal: AbortSignal) => AsyncIterable<Answer>;
}

export interface FeedOptions {
  readonly clock: Clock;
  readonly random: () => number;
  readonly agent: AgentAsked;
}

/** What a page was told up to now. */
export interface Told {
  readonly version: number;
  readonly link: Link | undefined;
  readonly usage: number | undefined;
}

/** A page that was told nothing yet. */
export const toldNothing: Told = { version: 0, link: undefined, usage: undefined };

/**
 * What is known of the agent, for any number of pages. While one is open the agent's changes are followed; otherwise it is
 * asked every ten seconds, for the plots.
 */
export class Feed {
  readonly #options: FeedOptions;
  readonly #sections = new Sections();
  readonly #history = new UsageHistory();
  readonly #watchers = new Set<() => void>();
  #link: Link = { state: "waiting" };
  #heard: number | undefined;
  /** Ends what is under way when the first page opens or the last one closes. */
  #turn = new AbortController();

  constructor(options: FeedOptions) {
    this.#options = options;
  }

  /** Calls `onChange` after each change until the returned function is called. */
  watch(onChange: () => void): () => void {
    this.#watchers.add(onChange);
    if (this.#watchers.size === 1) this.#turn.abort();
    return () => {
      if (this.#watchers.delete(onChange) && this.#watchers.size === 0) this.#turn.abort();
    };
  }

  /** One line for a page that knows what `told` says, and what it knows then. */
  messageFor(told: Told): { readonly line: string; readonly told: Told } {
    const message: FeedMessage = {
      now: this.#options.clock.now(),
      link: this.#link,
      usage: this.#history.since(told.usage),
    };
    const snapshot = this.#sections.changedSince(told.version);
    // The members are JSON already.
    const head = JSON.stringify(message).slice(0, -1);
    const line = `${head}${snapshot === undefined ? "" : `,"snapshot":${snapshot}`}}\n`;
    const usage = message.usage?.at(-1)?.[0] ?? told.usage;
    return { line, told: { version: this.#sections.version, link: this.#link, usage } };
  }

  /** Whether there is something to tell such a page. */
  hasNews(told: Told): boolean {
    return told.version < this.#sections.version || told.link !== this.#link;
  }

  /** Follows the agent until `signal` aborts; never gives it up. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    let failures = 0;
    while (!signal.aborted) {
      this.#turn = new AbortController();
      const turn = AbortSignal.any([signal, this.#turn.signal]);
      for await (const answer of this.#answers(turn)) {
        if (answer.kind === "snapshot") failures = 0;
        else failures += 1;
        this.#receive(answer);
      }
      // Pages that come and go make nobody ask faster.
      if (failures > 0) await pause(jitteredBackoffMs(failures, backoff, random), signal, clock);
    }
  }

  // What the agent answers until it has no answer or `turn` aborts.
  async *#answers(turn: AbortSignal): AsyncGenerator<Answer, void> {
    const { agent, clock } = this.#options;
    try {
      if (this.#watchers.size > 0) yield* agent.follow(turn);
      else {
        const answer = await agent.ask(turn);
        yield answer;
        if (answer.kind === "snapshot") await clock.sleep(unwatchedMs, turn);
      }
    } catch (error) {
      if (!turn.aborted) throw error;
    }
  }

  #receive(answer: Answer): void {
    const now = this.#options.clock.now();
    if (answer.kind === "snapshot") {
      this.#heard = now;
      if (this.#link.state !== "live") this.#link = { state: "live" };
      this.#sections.replace(answer.snapshot);
      this.#history.add(Date.parse(answer.snapshot.time), answer.snapshot.usage);
    } else {
      const { remedy, why } = answer;
      const before = this.#link;
      if (before.state === "away" && before.why === why) return;
      const since = before.state === "away" ? before.since : (this.#heard ?? now);
      this.#link = { state: "away", since, why, remedy };
    }
    for (const watcher of this.#watchers) watcher();
  }
}

async function pause(ms: number, signal: AbortSignal, clock: Clock): Promise<void> {
  try {
    await clock.sleep(ms, signal);
  } catch (error) {
    if (!isAbort(error)) throw error;
  }
}
