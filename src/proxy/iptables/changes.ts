import { type Chain, type Rule, ruleText, type Table } from "./rules.ts";

/** One step inside a chain that others' rules of ours stand in too. */
export type Edit =
  | { readonly edit: "delete"; readonly rule: Rule }
  /** `at` counts from 1, in the chain as it is then. */
  | { readonly edit: "insert"; readonly at: number; readonly rule: Rule };

/** All that must happen in the kernel, in no order but that of the edits of one chain. */
export interface Changes {
  /** Emptied, or made, and filled. Groups hold chains that refer to each other. */
  readonly chains: readonly (readonly Chain[])[];
  readonly edits: readonly {
    readonly table: Table;
    readonly chain: string;
    readonly steps: readonly Edit[];
  }[];
  /** Chains that nothing leads to any more. */
  readonly dead: readonly { readonly table: Table; readonly name: string }[];
  /** Ways from chains of the system: lines of `iptables-restore`, in order. */
  readonly jumps: readonly { readonly table: Table; readonly line: string }[];
}

/** How many things differ. */
export function countChanges({ chains, edits, dead, jumps }: Changes): number {
  return (
    chains.reduce((sum, group) => sum + group.length, 0) +
    edits.reduce((sum, { steps }) => sum + steps.length, 0) +
    dead.length +
    jumps.length
  );
}

interface TableText {
  readonly chains: string[];
  readonly rules: string[];
}

/** Collects lines by table. iptables takes a table's chains first. */
class RestoreText {
  readonly #tables = new Map<Table, TableText>();

  #table(table: Table): TableText {
    const found = this.#tables.get(table) ?? { chains: [], rules: [] };
    this.#tables.set(table, found);
    return found;
  }

  chain({ table, name, rules }: Chain): void {
    const text = this.#table(table);
    text.chains.push(`:${name} - [0:0]`);
    for (const rule of rules) text.rules.push(`-A ${name} ${ruleText(rule)}`);
  }

  declare(table: Table, name: string): void {
    this.#table(table).chains.push(`:${name} - [0:0]`);
  }

  line(table: Table, line: string): void {
    this.#table(table).rules.push(line);
  }

  /** The filter first: what is refused must not be sent on for a moment, and the other way round is no better. */
  toString(): string {
    const parts: string[] = [];
    for (const table of ["mangle", "filter", "nat"] as const) {
      const text = this.#tables.get(table);
      if (text === undefined) continue;
      parts.push(`*${table}`, ...text.chains, ...text.rules, "COMMIT");
    }
    return parts.length === 0 ? "" : `${parts.join("\n")}\n`;
  }
}

function editLine(chain: string, edit: Edit): string {
  if (edit.edit === "delete") return `-D ${chain} ${ruleText(edit.rule)}`;
  return `-I ${chain} ${edit.at === 1 ? "" : `${edit.at} `}${ruleText(edit.rule)}`;
}

/**
 * The texts for `iptables-restore` that carry out changes, in order. Chains go ahead of what leads to them, and only the
 * last text leads there, so that what fails halfway has changed nothing for packets of new Services.
 *
 * @param rulesPerText How many rules one text may have, about; the last one may have more.
 */
export function renderChanges(changes: Changes, rulesPerText: number): readonly string[] {
  const { chains, edits, dead, jumps } = changes;
  const total = chains.reduce((sum, group) => sum + countRules(group), 0);
  const texts: string[] = [];
  let text = new RestoreText();
  if (total <= rulesPerText) {
    for (const group of chains) for (const chain of group) text.chain(chain);
  } else {
    let size = 0;
    for (const group of chains) {
      if (size > 0 && size + countRules(group) > rulesPerText) {
        texts.push(text.toString());
        text = new RestoreText();
        size = 0;
      }
      for (const chain of group) text.chain(chain);
      size += countRules(group);
    }
  }
  for (const { table, chain, steps } of edits) {
    for (const step of steps) text.line(table, editLine(chain, step));
  }
  for (const { table, line } of jumps) text.line(table, line);
  for (const { table, name } of dead) {
    // Naming it empties it: what it led to may be deleted as well.
    text.declare(table, name);
    text.line(table, `-X ${name}`);
  }
  return [...texts, text.toString()].filter((one) => one !== "");
}

function countRules(group: readonly Chain[]): number {
  return group.reduce((sum, { rules }) => sum + rules.length + 1, 0);
}
