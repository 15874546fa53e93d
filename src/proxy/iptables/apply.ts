import { readFile, writeFile } from "node:fs/promises";

import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort, SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import {
  installedIptables,
  Iptables,
  IptablesError,
  type IptablesProgram,
  mayHaveRules,
  probeIptables,
} from "../../netfilter/iptables.ts";
import type { ApplyResult, RulesContext } from "../backend.ts";
import { Breather } from "../../lib/in-slices.ts";
import {
  type Changes,
  countChanges,
  countWritten,
  pause,
  restoreTexts,
  touchedChains,
} from "./changes.ts";
import type { DesiredRules } from "./desired.ts";
import { canaryChain, jumps, openedLocalnet, servesLocalhost, tables } from "./fixed.ts";
import { type Listing, parseSave } from "./listing.ts";
import { jumpsAreThere, reconcileSteps, withoutRules } from "./reconcile.ts";

/** The nf_tables kind takes time that grows with the square of a transaction's chains; the other kind, of its number. */
const rulesPerText = { nf_tables: 2000, legacy: Infinity } as const;

/** What the kernel is not trusted with: all of it, or the ways from the system's chains to ours. */
type Doubt = "nothing" | "jumps" | "all";

/** The machine, as far as rules need it. */
export interface RulesHost {
  /** @throws {SetupError} when there is no iptables. */
  open(signal: AbortSignal): Promise<Pick<Iptables, "restore" | "save" | "list" | "program">>;
  readSysctl(name: string): Promise<string>;
  writeSysctl(name: string, value: string): Promise<void>;
}

/** Brings the tables in the kernel to what is wanted, and knows what it has told it. */
export class RulesApplier {
  readonly #desired: DesiredRules;
  readonly #logger: Logger;
  readonly #host: RulesHost;
  readonly #clock: Clock;
  #iptables: Awaited<ReturnType<RulesHost["open"]>> | undefined;
  #doubt: Doubt = "all";
  #failures = 0;
  #everDone = false;
  #preparedFor: RulesContext | undefined;
  #openedLocalnet = false;

  constructor(options: {
    readonly desired: DesiredRules;
    readonly logger: Logger;
    readonly host: RulesHost;
    readonly clock: Clock;
  }) {
    this.#desired = options.desired;
    this.#logger = options.logger;
    this.#host = options.host;
    this.#clock = options.clock;
  }

  distrust(what: "jumps" | "all"): void {
    if (this.#doubt !== "all") this.#doubt = what;
  }

  /** Undefined until the first synchronisation. */
  get program(): IptablesProgram | undefined {
    return this.#iptables?.program;
  }

  /** What the kernel counted at the rules of one of our chains; undefined when there is none. */
  async counters(
    table: string,
    chain: string,
    signal: AbortSignal,
  ): Promise<readonly CountedRule[] | undefined> {
    const text = await this.#iptables?.list(table, chain, signal, true);
    return text === undefined ? undefined : parseCounters(text);
  }

  /** @param remember Gets what is about to be changed. @throws as `RuleBackend.sync`. */
  async sync(remember: (changes: Changes) => void, signal: AbortSignal): Promise<ApplyResult> {
    this.#iptables ??= await this.#host.open(signal);
    const iptables = this.#iptables;
    await this.#prepareHost(iptables, signal);
    // At the start all is pending, and nothing is explained by it.
    const pending = this.#everDone
      ? await this.#inSlices(this.#desired.changesSteps())
      : nothingPending;
    const doubt = this.#doubt;
    // What is doubted while this goes on is looked at the next time.
    this.#doubt = "nothing";
    try {
      const changes = await this.#whatDiffers(doubt, pending, signal);
      remember(changes);
      const { transactions, bytes } = await this.#restoreAll(iptables, changes, signal);
      this.#failures = 0;
      await this.#inSlices(this.#desired.committedSteps());
      const count = countChanges(changes);
      const written = countWritten(changes);
      const drift = this.#everDone && !isExplained(changes, pending);
      this.#everDone = true;
      return {
        changes: count,
        transactions,
        bytes,
        drift: doubt === "nothing" ? undefined : drift,
        cleanupFailed: false,
        rules: new Map(
          [...this.#desired.countRules()].map(([table, total]) => [
            table,
            { total, written: written.get(table) ?? 0 },
          ]),
        ),
      };
    } catch (error) {
      this.#doubt = "all";
      throw error;
    }
  }

  async #whatDiffers(doubt: Doubt, pending: Changes, signal: AbortSignal): Promise<Changes> {
    if (doubt === "nothing") return pending;
    if (doubt === "jumps" && (await this.areJumpsThere(signal))) return pending;
    const listing = await this.#read(signal);
    // What fails twice after a look is something that comparing does not see.
    const known = this.#failures < 2 ? listing : withoutRules(listing);
    return this.#inSlices(reconcileSteps(this.#desired, known));
  }

  /** Long work must let others on this event loop have a turn. */
  async #inSlices<T>(steps: Generator<undefined, T>): Promise<T> {
    const breather = new Breather(this.#clock);
    for (;;) {
      const { done, value } = steps.next();
      if (done === true) return value;
      if (breather.due()) await breather.rest();
    }
  }

  async #restoreAll(
    iptables: Pick<Iptables, "restore" | "program">,
    changes: Changes,
    signal: AbortSignal,
  ): Promise<Pick<ApplyResult, "transactions" | "bytes">> {
    const breather = new Breather(this.#clock);
    const texts: string[] = [];
    for (const text of restoreTexts(changes, rulesPerText[iptables.program.variant])) {
      if (text !== pause) texts.push(text);
      else if (breather.due()) await breather.rest();
    }
    // One program carries out all of them, each for itself: to start it costs as much as a small one.
    const text = texts.join("");
    if (text !== "") await this.#restore(iptables, text, signal);
    return { transactions: texts.length, bytes: text.length };
  }

  async #read(signal: AbortSignal): Promise<Listing> {
    const listing = new Map<(typeof tables)[number], ReturnType<typeof parseSave>>();
    for (const table of tables) {
      listing.set(table, parseSave((await this.#iptables?.save(table, signal)) ?? ""));
    }
    return listing;
  }

  async #restore(
    iptables: Pick<Iptables, "restore">,
    text: string,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      await iptables.restore(text, signal);
    } catch (error) {
      if (isAbort(error)) throw error;
      this.#failures += 1;
      if (error instanceof IptablesError && error.line !== undefined) {
        this.#logger.log("warn", "iptables refused a line", {
          error: errorMessage(error),
          rules: linesAround(text, error.line),
        });
      }
      throw error;
    }
  }

  /** Before every synchronisation that looks: others change these too, and rules depend on them. */
  async #prepareHost(iptables: Pick<Iptables, "list">, signal: AbortSignal): Promise<void> {
    const { context } = this.#desired;
    if (this.#doubt === "nothing" && this.#preparedFor === context) return;
    this.#desired.setFacts({ tcpBeLiberal: await this.#isLiberal() });
    if (servesLocalhost(context)) await this.#openLocalnet(iptables, signal);
    this.#preparedFor = context;
  }

  async #openLocalnet(iptables: Pick<Iptables, "list">, signal: AbortSignal): Promise<void> {
    const sysctl = "net/ipv4/conf/all/route_localnet";
    if ((await this.#host.readSysctl(sysctl)).trim() === "1") {
      if (this.#openedLocalnet) return;
      const canary = await iptables.list("mangle", canaryChain, signal);
      this.#desired.setFacts({ openedLocalnet: canary?.includes(openedLocalnet.comment) === true });
      return;
    }
    try {
      await this.#host.writeSysctl(sysctl, "1");
    } catch (error) {
      throw new SetupError(
        "node ports on 127.0.0.1 need net.ipv4.conf.all.route_localnet=1, which cannot be set: set it, or set iptables.localhostNodePorts to false",
        { cause: error },
      );
    }
    this.#openedLocalnet = true;
    this.#desired.setFacts({ openedLocalnet: true });
  }

  async #isLiberal(): Promise<boolean> {
    try {
      const text = await this.#host.readSysctl("net/netfilter/nf_conntrack_tcp_be_liberal");
      return text.trim() !== "0";
    } catch {
      // nf_conntrack is loaded with the first rule that needs it.
      return false;
    }
  }

  /** Whether the ways from the system's chains to ours are there. What cannot be found out counts as there. */
  async areJumpsThere(signal: AbortSignal): Promise<boolean> {
    const iptables = this.#iptables;
    if (iptables === undefined) return true;
    try {
      for (const table of tables) {
        const sources = new Set(jumps.flatMap((one) => (one.table === table ? [one.from] : [])));
        for (const from of sources) {
          const listed = parseSave((await iptables.list(table, from, signal)) ?? "");
          const own = jumps.filter((one) => one.table === table && one.from === from);
          if (!jumpsAreThere(own, listed.get(from) ?? [])) return false;
        }
        if ((await iptables.list(table, canaryChain, signal)) === undefined) return false;
      }
    } catch (error) {
      if (isAbort(error)) throw error;
      this.#logger.log("debug", "iptables could not be asked", { error: errorMessage(error) });
    }
    return true;
  }
}

/** A rule and how many packets met it. */
export interface CountedRule {
  readonly text: string;
  readonly packets: number;
}

/** Reads what `iptables -v -S` prints. */
export function parseCounters(text: string): readonly CountedRule[] {
  return text.split("\n").flatMap((line) => {
    const [, before, packets, after] = /^-A \S+ (.*)-c (\d+) \d+ ?(.*)$/.exec(line) ?? [];
    if (before === undefined || after === undefined) return [];
    return [{ text: `${before}${after}`.trim(), packets: Number(packets) }];
  });
}

/** Whether all that differs is about what was to be changed. */
function isExplained(changes: Changes, pending: Changes): boolean {
  if (changes === pending) return true;
  const expected = touchedChains(pending);
  return [...touchedChains(changes)].every((name) => expected.has(name));
}

const nothingPending: Changes = { chains: [], edits: [], dead: [], jumps: [] };

/** Three lines on either side of the one that was refused, with their numbers. */
function linesAround(text: string, line: number): string {
  const from = Math.max(line - 4, 0);
  return text
    .split("\n")
    .slice(from, line + 3)
    .map((one, index) => `${from + index + 1}: ${one}`)
    .join("\n");
}

/** This machine. */
export function systemRulesHost(family: "IPv4" | "IPv6", logger: Logger): RulesHost {
  return {
    async open(signal) {
      const program = await probeIptables(signal);
      if (program === undefined) {
        throw new SetupError("iptables is not installed: run `apt-get install iptables`");
      }
      const iptables = new Iptables(family, program);
      await warnOfOthers(family, program, logger, signal);
      return iptables;
    },
    readSysctl: (name) => readFile(`/proc/sys/${name}`, "utf8"),
    writeSysctl: (name, value) => writeFile(`/proc/sys/${name}`, value),
  };
}

/** The kernel obeys the rules of both kinds, and nobody sees both. */
async function warnOfOthers(
  family: "IPv4" | "IPv6",
  chosen: IptablesProgram,
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  for (const program of await installedIptables(signal)) {
    if (program.variant === chosen.variant || !(await mayHaveRules(program, family))) continue;
    try {
      const found = await new Iptables(family, program).list("nat", "KUBE-SERVICES", signal);
      if (found === undefined) continue;
    } catch (error) {
      if (isAbort(error)) throw error;
      continue;
    }
    logger.log("warn", "the other kind of iptables has Service rules too, and packets meet both", {
      used: chosen.variant,
      other: program.variant,
    });
  }
}
