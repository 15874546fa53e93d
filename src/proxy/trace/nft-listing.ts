import { UnknownRuleError } from "./errors.ts";
import { parseElements } from "./nft-container.ts";
import { parsePlace } from "./nft-place.ts";
import type { NftTraceTable } from "./nft-table.ts";
import type { NftTraceRuleset } from "./nft-text.ts";

/** Properties of sets and maps that do not change where a packet goes. */
const containerProperty =
  /^(type|typeof|size|flags|timeout|gc-interval|policy|counter|auto-merge|comment)\b/;

type Block =
  | { readonly kind: "none" }
  | { readonly kind: "chain"; readonly name: string; readonly empty: boolean }
  | { readonly kind: "container"; readonly name: string };

const opening = /^(table|chain|set|map) (\S+)(?: (\S+))? \{$/;

/**
 * Reads what `nft list ruleset` or `nft list table` prints.
 *
 * @throws {UnknownRuleError}
 */
export function readListing(listing: string, into: NftTraceRuleset): void {
  let table: NftTraceTable | undefined;
  let block: Block = { kind: "none" };
  for (const line of logicalLines(listing)) {
    const [, what, name = "", second = ""] = opening.exec(line) ?? [];
    if (what === "table") table = into.addTable(name, second);
    else if (table === undefined) throw new UnknownRuleError(line, "outside of tables");
    else if (line === "}") {
      if (block.kind === "chain" && block.empty) table.addChain(block.name, undefined);
      if (block.kind === "none") table = undefined;
      block = { kind: "none" };
    } else if (what === "chain") block = { kind: "chain", name, empty: true };
    else if (what === "set" || what === "map") {
      table.addContainer(what, name);
      block = { kind: "container", name };
    } else block = readLine(line, block, table);
  }
}

function readLine(line: string, block: Block, table: NftTraceTable): Block {
  if (block.kind === "chain") {
    const base = block.empty && line.startsWith("type ");
    if (block.empty) table.addChain(block.name, base ? parsePlace(line) : undefined);
    if (!base) table.addRule(block.name, line);
    return { ...block, empty: false };
  }
  if (block.kind === "container" && line.startsWith("elements = {")) {
    const container = table.container(block.name);
    const text = line.slice(line.indexOf("{") + 1, line.lastIndexOf("}"));
    for (const [key, value] of parseElements(text)) container.add(key, value);
    return block;
  }
  if (block.kind === "none" || !containerProperty.test(line))
    throw new UnknownRuleError(line, table.label);
  return block;
}

/** Elements go over many lines; everything else is one. */
function logicalLines(listing: string): readonly string[] {
  const lines: string[] = [];
  let begun = "";
  for (const raw of listing.split("\n")) {
    const line = `${begun} ${raw.trim()}`.trim();
    begun = "";
    if (line === "" || line.startsWith("#")) continue;
    if (line.startsWith("elements = {") && !line.endsWith("}")) begun = line;
    else lines.push(line);
  }
  return lines;
}
