import type { Machine } from "./machine.ts";

/** In which part of the report a check stands, in this order. */
export const groups = ["machine", "Docker", "network", "names", "cluster"] as const;
export type Group = (typeof groups)[number];

/** A trouble that a check knows: an entry of docs/troubleshooting.md. */
export interface Problem {
  /** `error`: something does not work, or will not; `warning`: it works, and may cease to. */
  readonly level: "error" | "warning";
  /** What is not as it should be, in one sentence. */
  readonly means: string;
  readonly cause: string;
  /** What to do about it, with the command where there is one. */
  readonly remedy: string;
}

/** A problem that was found here. */
export interface Finding<Code extends string = string> {
  readonly problem: Code;
  /** With the names and figures of this machine. */
  readonly text: string;
  /** A command for this machine, where there is a better one than the problem's own. */
  readonly remedy?: string;
}

/** What a check says. */
export type Judgement<Code extends string = string> =
  | {
      readonly kind: "judged";
      /** What was seen, for who wants to know what is fine too. */
      readonly seen: string;
      readonly findings: readonly Finding<Code>[];
    }
  /** There is nothing to judge on this machine. */
  | { readonly kind: "skipped"; readonly why: string }
  /** It should have been judged and could not be. */
  | { readonly kind: "unknown"; readonly why: string };

/** One look at one thing. */
export interface Check {
  /** For `--only`: never changes its meaning. */
  readonly id: string;
  readonly title: string;
  readonly group: Group;
  /** What it looks at, for people. */
  readonly looks: string;
  /** Where more is written about it. */
  readonly reference: string;
  readonly problems: Readonly<Record<string, Problem>>;
  /** Default {@link defaultDeadlineMs}. */
  readonly deadlineMs?: number;
  /** @throws what its collecting throws; the runner makes a sentence of it. */
  look(machine: Machine, signal: AbortSignal): Promise<Judgement>;
}

/** How long a check may take. */
export const defaultDeadlineMs = 10_000;

interface Definition<Code extends string, Facts> extends Omit<Check, "look" | "problems"> {
  readonly problems: Readonly<Record<Code, Problem>>;
  /** Asks the machine; decides nothing. */
  readonly collect: (machine: Machine, signal: AbortSignal) => Promise<Facts>;
  /** Decides; asks nobody. */
  readonly judge: (facts: Facts) => Judgement<Code>;
}

/** A check out of its two halves. */
export function defineCheck<Code extends string, Facts>(
  definition: Definition<Code, Facts>,
): Check & Pick<Definition<Code, Facts>, "judge"> {
  const { collect, ...rest } = definition;
  return {
    ...rest,
    look: async (machine, signal) => rest.judge(await collect(machine, signal)),
  };
}

export function judged<Code extends string>(
  seen: string,
  findings: readonly Finding<Code>[],
): Judgement<Code> {
  return { kind: "judged", seen, findings };
}

export function skipped(why: string): Judgement<never> {
  return { kind: "skipped", why };
}

export function unknown(why: string): Judgement<never> {
  return { kind: "unknown", why };
}
