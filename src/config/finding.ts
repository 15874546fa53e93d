/** A rule of upstream's validation that a configuration breaks, in upstream's words. */
export interface Finding {
  /** The field that should change. */
  readonly path: string;
  readonly text: string;
  /** Default: an error. */
  readonly severity?: "error" | "ignored";
}

/** Broken or not, the field, and upstream's sentence behind `invalid configuration: `. */
export type Rule = readonly [broken: boolean, path: string, text: string];

/** The findings of rules that are broken. */
export function broken(rules: readonly Rule[], prefix = "invalid configuration: "): Finding[] {
  return rules
    .filter(([isBroken]) => isBroken)
    .map(([, path, text]) => ({ path, text: `${prefix}${text}` }));
}
