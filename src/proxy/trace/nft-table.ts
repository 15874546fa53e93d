import { RefusedTextError, UnknownRuleError } from "./errors.ts";
import type { BaseChain, Final, Flow } from "./flow.ts";
import { NftContainer } from "./nft-container.ts";
import type { NftPlace } from "./nft-place.ts";
import { type NftStatement, type Outcome, parseNftStatement } from "./nft-statement.ts";
import { NftReader } from "./nft-words.ts";
import { runChain, type RunnableRule } from "./run-chain.ts";

export interface NftTraceRule extends RunnableRule {
  readonly text: string;
  readonly tag: string;
}

export interface NftTraceChain {
  readonly name: string;
  readonly place: NftPlace | undefined;
  readonly rules: NftTraceRule[];
}

/** A table that can be executed. */
export class NftTraceTable {
  readonly family: string;
  readonly name: string;
  readonly chains = new Map<string, NftTraceChain>();
  readonly containers = new Map<string, NftContainer>();

  readonly #strict: boolean;

  /** @param strict What is not understood is an error at once; else only packets that meet it cannot be judged. */
  constructor(family: string, name: string, strict = true) {
    this.family = family;
    this.name = name;
    this.#strict = strict;
  }

  get label(): string {
    return `nft ${this.family} ${this.name}`;
  }

  addChain(name: string, place: NftPlace | undefined): void {
    if (!this.chains.has(name)) this.chains.set(name, { name, place, rules: [] });
  }

  /** @throws {RefusedTextError} */
  chain(name: string): NftTraceChain {
    const found = this.chains.get(name);
    if (found === undefined) throw new RefusedTextError(`${this.label} has no chain ${name}`);
    return found;
  }

  /** @throws {RefusedTextError} */
  container(name: string): NftContainer {
    const found = this.containers.get(name);
    if (found === undefined) throw new RefusedTextError(`${this.label} has no set or map ${name}`);
    return found;
  }

  addContainer(kind: "map" | "set", name: string): void {
    if (!this.containers.has(name)) this.containers.set(name, new NftContainer(kind, name));
  }

  /**
   * Reads a rule, its comment included.
   *
   * @throws {UnknownRuleError}, {RefusedTextError}
   */
  addRule(chain: string, body: string): void {
    const [, text = "", tag = ""] = /^(.*?)(?: comment "([^"]*)")?$/.exec(body.trim()) ?? [];
    const reader = new NftReader(text);
    const statements: NftStatement[] = [];
    try {
      while (!reader.done) {
        statements.push(parseNftStatement(reader, (name) => this.containers.get(name)));
      }
    } catch (error) {
      if (!(error instanceof UnknownRuleError) || this.#strict) throw error;
      statements.push(() => {
        throw error;
      });
    }
    if (statements.length === 0) throw new UnknownRuleError("end", body);
    this.chain(chain).rules.push({ text, tag, try: (flow) => tryRule(statements, flow) });
  }

  /** The chains that the kernel calls by itself. */
  bases(): BaseChain[] {
    return [...this.chains.values()].flatMap(({ name, place }) =>
      place === undefined
        ? []
        : [
            {
              ...place,
              table: this.label,
              name,
              evaluate: (flow: Flow): Final | undefined =>
                runChain(name, flow, {
                  table: this.label,
                  rulesOf: (chain) => this.chain(chain).rules,
                }),
            },
          ],
    );
  }

  /** Everything in the table, in comparable lines. */
  dump(): string[] {
    const lines: string[] = [];
    for (const { name, place, rules } of this.chains.values()) {
      lines.push(`chain ${name} ${place === undefined ? "" : JSON.stringify(place)}`);
      rules.forEach(({ text, tag }, index) => lines.push(`rule ${name} ${index} ${text} ${tag}`));
    }
    for (const { kind, name, elements } of this.containers.values()) {
      lines.push(`${kind} ${name}`);
      for (const [key, value] of elements) lines.push(`element ${name} ${key} : ${value}`);
    }
    return lines.toSorted();
  }
}

function tryRule(statements: readonly NftStatement[], flow: Flow): Outcome {
  for (const statement of statements) {
    const outcome = statement(flow);
    if (outcome === undefined) continue;
    return outcome;
  }
  return { kind: "none" };
}
