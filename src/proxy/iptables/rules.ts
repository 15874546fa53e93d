/** Tables that Service rules stand in. */
export type Table = "filter" | "nat" | "mangle";

/** One rule without its chain. */
export interface Rule {
  /** For people; empty = none. */
  readonly comment: string;
  /** Matches and target, as iptables takes them. */
  readonly text: string;
}

/** A chain of our own, with all its rules. */
export interface Chain {
  readonly table: Table;
  readonly name: string;
  readonly rules: readonly Rule[];
  /** Not in the kernel yet, so no packet comes here before all of it does. */
  readonly fresh?: true;
}

/** What stands behind `-A CHAIN`. */
export function ruleText({ comment, text }: Rule): string {
  if (comment === "") return text;
  const quoted = comment.includes(" ") ? `"${comment}"` : comment;
  return `-m comment --comment ${quoted}${text === "" ? "" : ` ${text}`}`;
}

/** One line of `iptables-restore` or of `iptables-save`. */
export function appendLine(chain: string, rule: Rule): string {
  return `-A ${chain} ${ruleText(rule)}`;
}

/** Whether two lists of rules do the same; what they tell people does not count. */
export function sameRules(a: readonly Rule[], b: readonly Rule[]): boolean {
  return a.length === b.length && a.every(({ text }, index) => text === b[index]?.text);
}
