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

/** Names of all chains that changes are about, with their tables. */
export function touchedChains({ chains, edits, dead, jumps }: Changes): ReadonlySet<string> {
  return new Set([
    ...chains.flatMap((group) => group.map(({ table, name }) => `${table} ${name}`)),
    ...edits.map(({ table, chain }) => `${table} ${chain}`),
    ...dead.map(({ table, name }) => `${table} ${name}`),
    ...jumps.map(({ table, line }) => `${table} ${line.split(" ")[1] ?? ""}`),
  ]);
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

/** Rules that are written, by table. */
export function countWritten({ chains, edits, jumps }: Changes): ReadonlyMap<Table, number> {
  const counts = new Map<Table, number>();
  const add = (table: Table, count: number): void => {
    counts.set(table, (counts.get(table) ?? 0) + count);
  };
  for (const group of chains) for (const { table, rules } of group) add(table, rules.length);
  for (const { table, steps } of edits) {
    add(table, steps.filter(({ edit }) => edit === "insert").length);
  }
  for (const { table, line } of jumps) if (line.startsWith("-I")) add(table, 1);
  return counts;
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

  piece({ chain: { table, name, rules }, continued }: Piece): void {
    const text = this.#table(table);
    if (!continued) text.chains.push(`:${name} - [0:0]`);
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

/** A piece of a chain: all of it, or a part of one that nobody is sent to yet. */
interface Piece {
  readonly chain: Chain;
  /** The chain has its first rules. */
  readonly continued: boolean;
}

/** What must go into one text: chains of one port refer to each other. Long ones, which are not a port's, may be parted. */
function pieces(group: readonly Chain[], rulesPerText: number): readonly (readonly Piece[])[] {
  if (countRules(group) <= rulesPerText) {
    return [group.map((chain) => ({ chain, continued: false }))];
  }
  return group.flatMap((chain): readonly Piece[][] => {
    if (chain.fresh !== true) return [[{ chain, continued: false }]];
    const found: Piece[][] = [];
    for (let at = 0; at === 0 || at < chain.rules.length; at += rulesPerText) {
      const rules = chain.rules.slice(at, at + rulesPerText);
      found.push([{ chain: { ...chain, rules }, continued: at > 0 }]);
    }
    return found;
  });
}

/** Gives way to others; not a text. */
export const pause = Symbol("pause");

/**
 * The texts for `iptables-restore` that carry out changes. Chains go ahead of what leads to them: what fails halfway has
 * changed nothing for packets of new Services.
 *
 * @param rulesPerText How many rules one text may have, about; one chain that is in use is never parted.
 * @yields Each text, in order, and between them places where the work may rest.
 */
export function* restoreTexts(
  { chains, edits, dead, jumps }: Changes,
  rulesPerText: number,
): Generator<string | typeof pause, undefined> {
  let text = new RestoreText();
  let size = 0;
  for (const group of chains) {
    for (const some of pieces(group, rulesPerText)) {
      const length = countRules(some.map(({ chain }) => chain));
      if (size > 0 && size + length > rulesPerText) {
        yield text.toString();
        text = new RestoreText();
        size = 0;
      }
      for (const piece of some) text.piece(piece);
      size += length;
    }
    yield pause;
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
  const last = text.toString();
  if (last !== "") yield last;
}

function countRules(group: readonly Chain[]): number {
  return group.reduce((sum, { rules }) => sum + rules.length + 1, 0);
}
