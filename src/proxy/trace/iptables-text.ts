import { RefusedTextError, UnknownRuleError } from "./errors.ts";
import type { BaseChain, Final, Flow, HookName, Remembered, Ruleset, Verdict } from "./flow.ts";
import { type IptablesMatch, type IptablesMemory, parseIptablesMatch } from "./iptables-match.ts";
import { type IptablesTarget, parseIptablesTarget } from "./iptables-target.ts";
import { IptablesReader, iptablesWords } from "./iptables-words.ts";
import { runChain, type RunnableRule } from "./run-chain.ts";

const hookOf: ReadonlyMap<string, HookName> = new Map([
  ["PREROUTING", "prerouting"],
  ["INPUT", "input"],
  ["FORWARD", "forward"],
  ["OUTPUT", "output"],
  ["POSTROUTING", "postrouting"],
]);

function priority(table: string, hook: HookName): number {
  if (table === "nat") return hook === "prerouting" || hook === "output" ? -100 : 100;
  const priorities = new Map([
    ["raw", -300],
    ["mangle", -150],
    ["filter", 0],
    ["security", 50],
  ]);
  return priorities.get(table) ?? 0;
}

interface IptablesRule extends RunnableRule {
  /** The rule's words, to find it again. */
  readonly words: string;
}

interface IptablesChain {
  policy: "accept" | "drop" | undefined;
  readonly rules: IptablesRule[];
}

/** The rules of one family as iptables keeps them, that can be executed. */
export class IptablesTraceRuleset {
  readonly #program: string;
  readonly #tables = new Map<string, Map<string, IptablesChain>>();
  readonly #recent = new Map<string, Map<string, number>>();
  readonly #sets = new Map<string, readonly string[]>();
  readonly #strict: (chain: string) => boolean;

  /**
   * @param options.program Name in steps, `iptables` or `ip6tables`.
   * @param options.strict Chains in which what is not understood is an error at once; in others only packets that would
   *   meet it cannot be judged.
   */
  constructor(options: { readonly program: string; readonly strict?: (chain: string) => boolean }) {
    this.#program = options.program;
    this.#strict = options.strict ?? ((): boolean => true);
  }

  /** A list of the module `recent` has seen an address. */
  remember({ container, key }: Remembered, secondsAgo = 0): void {
    const known = this.#recent.get(container) ?? new Map<string, number>();
    known.set(key, secondsAgo);
    this.#recent.set(container, known);
  }

  /** Members of an ipset, in ipset's spelling. */
  setMembers(name: string, members: readonly string[]): void {
    this.#sets.set(name, members);
  }

  /**
   * Does what a text for `iptables-restore --noflush` says; also reads what `iptables-save` prints.
   *
   * @throws {RefusedTextError} where iptables would refuse it; {@link UnknownRuleError}.
   */
  run(text: string): void {
    let table: string | undefined;
    for (const raw of text.split("\n")) {
      const line = raw.trim();
      if (line === "" || line.startsWith("#")) continue;
      if (line.startsWith("*")) table = line.slice(1);
      else if (line === "COMMIT") table = undefined;
      else if (table === undefined) throw new UnknownRuleError(line, "outside of tables");
      else this.#line(table, line);
    }
  }

  #line(table: string, line: string): void {
    const chains = this.#tables.get(table) ?? new Map<string, IptablesChain>();
    this.#tables.set(table, chains);
    if (line.startsWith(":")) {
      const [name = "", policy = "-"] = line.slice(1).split(" ");
      declare(chains, name, policy);
      return;
    }
    // Counters may stand in front.
    const plain = line.replace(/^\[\d+:\d+\] /, "");
    const [verb = "", name = ""] = iptablesWords(plain);
    const rest = plain.slice(verb.length + name.length + 2).trim();
    switch (verb) {
      case "-N":
        declare(chains, name, "-");
        return;
      case "-F":
        chainIn(chains, name).rules.length = 0;
        return;
      case "-X":
        this.#deleteChain(chains, name);
        return;
      case "-A":
        chainIn(chains, name).rules.push(this.#rule(table, name, rest));
        return;
      case "-I": {
        const [, at = "1", body = rest] = /^(\d+) (.*)$/.exec(rest) ?? [];
        chainIn(chains, name).rules.splice(Number(at) - 1, 0, this.#rule(table, name, body));
        return;
      }
      case "-D": {
        const { rules } = chainIn(chains, name);
        const at = rules.findIndex(({ words }) => words === normalized(rest));
        if (at < 0) throw new RefusedTextError(`${table} ${name} has no rule ${rest}`);
        rules.splice(at, 1);
        return;
      }
      default:
        throw new UnknownRuleError(verb, line);
    }
  }

  #deleteChain(chains: Map<string, IptablesChain>, name: string): void {
    if (chainIn(chains, name).rules.length > 0)
      throw new RefusedTextError(`chain ${name} is not empty`);
    for (const [other, { rules }] of chains) {
      const user = rules.find(({ words }) => / -[jg] (\S+)$/.exec(` ${words}`)?.[1] === name);
      if (user !== undefined)
        throw new RefusedTextError(`chain ${name} is in use by ${other}: ${user.text}`);
    }
    chains.delete(name);
  }

  #rule(table: string, chain: string, text: string): IptablesRule {
    const reader = new IptablesReader(text);
    const memory: IptablesMemory = { recent: this.#recent, sets: this.#sets };
    const matches: IptablesMatch[] = [];
    let target: IptablesTarget = () => ({ kind: "none" });
    try {
      while (!reader.done) {
        reader.begin();
        if (reader.take("-j")) target = parseIptablesTarget(reader, "jump");
        else if (reader.take("-g")) target = parseIptablesTarget(reader, "goto");
        else matches.push(parseIptablesMatch(reader, memory));
      }
    } catch (error) {
      if (!(error instanceof UnknownRuleError) || this.#strict(chain)) throw error;
      target = () => {
        throw new UnknownRuleError(error.words, `${table} ${chain} ${text}`);
      };
    }
    const tag = /--comment (?:"((?:[^"\\]|\\.)*)"|(\S+))/.exec(text);
    return {
      text,
      words: normalized(text),
      tag: tag?.[1] ?? tag?.[2] ?? "",
      try: (flow: Flow): Verdict | "break" =>
        matches.every((match) => match(flow)) ? target(flow) : "break",
    };
  }

  /** The rules that packets meet. */
  rules(): Ruleset {
    const bases: BaseChain[] = [];
    for (const [table, chains] of this.#tables) {
      for (const [name, { policy }] of chains) {
        const hook = hookOf.get(name);
        if (hook === undefined) continue;
        bases.push({
          table: `${this.#program} ${table}`,
          name,
          type: table === "nat" ? "nat" : "filter",
          hook,
          priority: priority(table, hook),
          policy: policy ?? "accept",
          evaluate: (flow): Final | undefined =>
            runChain(name, flow, {
              table: `${this.#program} ${table}`,
              rulesOf: (chain) => chainIn(chains, chain).rules,
            }),
        });
      }
    }
    return { bases };
  }

  /** What `iptables-save` would print of a table. */
  save(table: string): string {
    const chains = [...(this.#tables.get(table) ?? [])];
    const declared = chains.map(
      ([name, { policy }]) => `:${name} ${policy === undefined ? "-" : policy.toUpperCase()} [0:0]`,
    );
    const rules = chains.flatMap(([name, chain]) =>
      chain.rules.map(({ text }) => `-A ${name} ${text}`.trimEnd()),
    );
    return [`*${table}`, ...declared, ...rules, "COMMIT", ""].join("\n");
  }

  /** What `iptables -S CHAIN` would print; undefined when there is no such chain. */
  list(table: string, chain: string): string | undefined {
    const known = this.#tables.get(table)?.get(chain);
    if (known === undefined) return hookOf.has(chain) ? `-P ${chain} ACCEPT\n` : undefined;
    return [
      known.policy === undefined ? `-N ${chain}` : `-P ${chain} ${known.policy.toUpperCase()}`,
      ...known.rules.map(({ text }) => `-A ${chain} ${text}`.trimEnd()),
      "",
    ].join("\n");
  }

  /** All rules, chain by chain, in comparable lines. */
  dump(): string[] {
    const lines: string[] = [];
    for (const [table, chains] of this.#tables) {
      for (const [name, { rules }] of chains) {
        lines.push(`${table} ${name}`);
        rules.forEach(({ words }, index) => lines.push(`${table} ${name} ${index} ${words}`));
      }
    }
    return lines.toSorted();
  }
}

function normalized(text: string): string {
  return iptablesWords(text).join(" ");
}

/** Naming a chain empties it, one of the system's keeps its rules. */
function declare(chains: Map<string, IptablesChain>, name: string, policy: string): void {
  const known = chains.get(name);
  const verdict = policy === "-" ? undefined : policy === "DROP" ? "drop" : "accept";
  if (known === undefined) {
    chains.set(name, { policy: verdict, rules: [] });
    return;
  }
  if (verdict === undefined) known.rules.length = 0;
  else known.policy = verdict;
}

/** Chains of the system are always there. */
function chainIn(chains: Map<string, IptablesChain>, name: string): IptablesChain {
  if (hookOf.has(name) && !chains.has(name)) chains.set(name, { policy: "accept", rules: [] });
  const found = chains.get(name);
  if (found === undefined) throw new RefusedTextError(`there is no chain ${name}`);
  return found;
}
