import { canonicalIP } from "../lib/cidr.ts";
import { ParseError } from "../lib/errors.ts";
import { asRecord, asString, isRecord, optionalNumber, optionalString } from "../lib/guard.ts";
import type { NftHook } from "./transaction.ts";

export interface ListedChain {
  readonly hook: NftHook | undefined;
  /** Tags (comments) of the rules in order; empty text for a rule without one. */
  readonly tags: string[];
}

export interface ListedContainer {
  readonly kind: "map" | "set";
  /** Elements by key, in the spelling that transactions use; values of sets are empty. */
  readonly elements: Map<string, string>;
}

/** One table as the kernel holds it. */
export interface TableListing {
  readonly chains: Map<string, ListedChain>;
  readonly containers: Map<string, ListedContainer>;
}

/**
 * Parses `nft -j list table`. Rule bodies are not looked at: old nft versions print some of them wrongly, so a rule is
 * known by its comment.
 *
 * @throws {ParseError} when the shape is not libnftables JSON schema version 1.
 */
export function parseTableListing(value: unknown): TableListing {
  const steps = tableListingSteps(value);
  for (;;) {
    const { done, value: listing } = steps.next();
    if (done === true) return listing;
  }
}

/**
 * The same for large tables.
 *
 * @yields a few thousand times for a table of 45 000 Services: where others may have a turn.
 */
export function* tableListingSteps(value: unknown): Generator<undefined, TableListing> {
  const items: unknown = asRecord(value, "$")["nftables"];
  if (!Array.isArray(items)) throw new ParseError("$.nftables", "an array");
  const listing: TableListing = { chains: new Map(), containers: new Map() };
  for (const [index, item] of items.entries()) {
    yield* readItem(item, `$.nftables[${index}]`, listing);
    yield undefined;
  }
  return listing;
}

const elementsPerStep = 100;

function* readItem(item: unknown, path: string, listing: TableListing): Generator<undefined, void> {
  if (!isRecord(item)) return;
  if (isRecord(item["chain"])) {
    const chain = item["chain"];
    listing.chains.set(asString(chain["name"], `${path}.chain.name`), {
      hook: readHook(chain),
      tags: [],
    });
  } else if (isRecord(item["rule"])) {
    const chain = asString(item["rule"]["chain"], `${path}.rule.chain`);
    listing.chains.get(chain)?.tags.push(optionalString(item["rule"]["comment"]) ?? "");
  } else if (isRecord(item["map"]) || isRecord(item["set"])) {
    const kind = isRecord(item["map"]) ? "map" : "set";
    const body = asRecord(item[kind], path);
    const elements = new Map<string, string>();
    const listed: unknown = body["elem"];
    if (Array.isArray(listed)) {
      for (const [at, element] of listed.entries()) {
        readElement(kind, element, `${path}.${kind}.elem`, elements);
        if (at % elementsPerStep === 0) yield undefined;
      }
    }
    listing.containers.set(asString(body["name"], `${path}.${kind}.name`), { kind, elements });
  }
}

const hookNames = new Set(["prerouting", "input", "forward", "output", "postrouting"]);

function readHook(chain: Record<string, unknown>): NftHook | undefined {
  const { type, hook, prio } = chain;
  if (typeof hook !== "string" || !hookNames.has(hook)) return undefined;
  if (type !== "filter" && type !== "nat") return undefined;
  return { type, hook: hook as NftHook["hook"], priority: optionalNumber(prio) ?? 0 };
}

function readElement(
  kind: "map" | "set",
  element: unknown,
  path: string,
  out: Map<string, string>,
): void {
  if (kind === "set") {
    out.set(expression(element, path), "");
    return;
  }
  if (!Array.isArray(element)) throw new ParseError(path, "a pair of key and value");
  out.set(expression(element[0], path), expression(element[1], path));
}

/** One JSON expression of an element in the words of the nft language. */
function expression(value: unknown, path: string): string {
  if (typeof value === "number") return String(value);
  if (typeof value === "string") return value.includes(":") ? canonicalIP(value, path) : value;
  const record = asRecord(value, path);
  const concat: unknown = record["concat"];
  if (Array.isArray(concat)) return concat.map((part) => expression(part, path)).join(" . ");
  if (isRecord(record["elem"])) return expression(record["elem"]["val"], path);
  if (isRecord(record["prefix"])) {
    return `${expression(record["prefix"]["addr"], path)}/${expression(record["prefix"]["len"], path)}`;
  }
  for (const verb of ["goto", "jump"] as const) {
    const target = record[verb];
    if (isRecord(target)) return `${verb} ${asString(target["target"], path)}`;
  }
  for (const verb of ["drop", "accept", "return"] as const) if (verb in record) return verb;
  throw new ParseError(path, "an address, port, protocol, concatenation or verdict");
}
