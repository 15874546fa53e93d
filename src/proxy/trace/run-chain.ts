import { UnknownRuleError } from "./errors.ts";
import type { Final, Flow, Verdict } from "./flow.ts";

/** A rule that can be tried on a packet. */
export interface RunnableRule {
  readonly text: string;
  readonly tag: string;
  /** What the rule says of the packet; `break` when it does not match. */
  readonly try: (flow: Flow) => Verdict | "break" | undefined;
}

interface RunOptions {
  readonly table: string;
  readonly rulesOf: (chain: string) => readonly RunnableRule[];
}

/** As many calls as the kernel lets chains nest. */
const maxDepth = 16;

/**
 * Sends a packet through a chain and those it calls.
 *
 * @returns Undefined when the chain ends without a decision.
 * @throws {UnknownRuleError} also when chains call each other deeper than the kernel allows.
 */
export function runChain(
  chain: string,
  flow: Flow,
  options: RunOptions,
  depth = 0,
): Final | undefined {
  if (depth > maxDepth) throw new UnknownRuleError("more than 16 nested chains", chain);
  for (const rule of options.rulesOf(chain)) {
    flow.results = [];
    const said = rule.try(flow);
    if (said === "break" || said === undefined) continue;
    flow.steps.push({
      table: options.table,
      hook: flow.hook,
      chain,
      rule: rule.text,
      tag: rule.tag,
      results: flow.results,
    });
    switch (said.kind) {
      case "none":
        break;
      case "return":
        return undefined;
      case "jump": {
        const final = runChain(said.chain, flow, options, depth + 1);
        if (final !== undefined) return final;
        break;
      }
      // Who is sent by goto does not come back here.
      case "goto":
        return runChain(said.chain, flow, options, depth + 1);
      case "accept":
      case "drop":
      case "reject":
        return said;
    }
  }
  return undefined;
}
