import type { KindDefinition } from "../types.ts";
import { allVerbs } from "./strategy.ts";

type Identity = Pick<KindDefinition, "kind" | "plural" | "schema" | "strategy" | "table">;

/** A KindDefinition with the usual answers for what `parts` leaves out: core group, v1, namespaced, all verbs. */
export function defineKind(parts: Identity & Partial<KindDefinition>): KindDefinition {
  return {
    group: "",
    version: "v1",
    singular: parts.kind.toLowerCase(),
    shortNames: [],
    categories: [],
    namespaced: true,
    verbs: allVerbs,
    durability: "durable",
    subresources: {},
    fieldSelectors: {},
    ...parts,
  };
}
