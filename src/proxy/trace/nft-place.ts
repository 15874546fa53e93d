import { UnknownRuleError } from "./errors.ts";
import type { BaseChain, HookName } from "./flow.ts";

/** Where a base chain stands. */
export interface NftPlace {
  readonly type: BaseChain["type"];
  readonly hook: HookName;
  readonly priority: number;
  readonly policy: "accept" | "drop";
}

const hooks: ReadonlyMap<string, HookName> = new Map(
  (["prerouting", "input", "forward", "output", "postrouting"] as const).map((hook) => [
    hook,
    hook,
  ]),
);

const types: ReadonlyMap<string, BaseChain["type"]> = new Map(
  (["filter", "nat", "route"] as const).map((type) => [type, type]),
);

const namedPriorities: ReadonlyMap<string, number> = new Map([
  ["raw", -300],
  ["mangle", -150],
  ["dstnat", -100],
  ["filter", 0],
  ["security", 50],
  ["srcnat", 100],
]);

const chainSpec =
  /^type (\w+) hook (\w+) priority (\w+|-?\d+)(?: ([+-]) (\d+))? ?;(?: ?policy (accept|drop) ?;)?$/;

/**
 * Reads `type nat hook output priority -101 ; policy accept ;`, also with the names that listings have for priorities.
 *
 * @throws {UnknownRuleError}
 */
export function parsePlace(text: string): NftPlace {
  const [, type = "", hook = "", base = "", sign, offset, policy] = chainSpec.exec(text) ?? [];
  const knownType = types.get(type);
  const knownHook = hooks.get(hook);
  const start = namedPriorities.get(base) ?? (/^-?\d+$/.test(base) ? Number(base) : undefined);
  if (knownType === undefined || knownHook === undefined || start === undefined)
    throw new UnknownRuleError(text, "base chain");
  const shift = (sign === "-" ? -1 : 1) * Number(offset ?? 0);
  return {
    type: knownType,
    hook: knownHook,
    priority: start + shift,
    policy: policy === "drop" ? "drop" : "accept",
  };
}
