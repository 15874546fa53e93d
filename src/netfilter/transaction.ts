import { ElementList, elementsPerCommand, elementText } from "./element-list.ts";

/** One nftables table. */
export interface NftTable {
  readonly family: "ip" | "ip6";
  readonly name: string;
}

/** Where a base chain hooks into the packet's path; a number, because names of priorities differ between hooks. */
export interface NftHook {
  readonly type: "filter" | "nat";
  readonly hook: "prerouting" | "input" | "forward" | "output" | "postrouting";
  readonly priority: number;
}

/** One rule. The tag is stored as the rule's comment, so that a read-back can tell which rule it is. */
export interface NftRule {
  readonly text: string;
  readonly tag: string;
}

/** A map (with `maps`) or a set: `spec` is what stands between the braces of its declaration. */
export interface NftContainer {
  readonly kind: "map" | "set";
  readonly name: string;
  readonly spec: string;
}

/** An element of a set (`value` empty) or of a map. */
export interface NftElement {
  readonly key: string;
  readonly value: string;
}

/** One step of a transaction, inside one table. */
export type NftOp =
  | { readonly op: "add-table" }
  /** Never fails: adds the table first when it is not there. */
  | { readonly op: "drop-table" }
  | { readonly op: "add-chain"; readonly chain: string; readonly hook?: NftHook }
  | { readonly op: "flush-chain"; readonly chain: string }
  | { readonly op: "delete-chain"; readonly chain: string }
  | { readonly op: "add-rule"; readonly chain: string; readonly rule: NftRule }
  | { readonly op: "add-container"; readonly container: NftContainer }
  | { readonly op: "delete-container"; readonly kind: "map" | "set"; readonly name: string }
  /** Deletes its elements. */
  | { readonly op: "flush-container"; readonly kind: "map" | "set"; readonly name: string }
  | {
      readonly op: "add-elements";
      readonly container: string;
      readonly elements: readonly NftElement[] | ElementList;
    }
  | {
      readonly op: "delete-elements";
      readonly container: string;
      readonly keys: readonly string[];
    };

function* batches<T>(items: readonly T[]): Generator<readonly T[]> {
  for (let start = 0; start < items.length; start += elementsPerCommand)
    yield items.slice(start, start + elementsPerCommand);
}

function commands(elements: readonly NftElement[] | ElementList): Iterable<string> {
  if (elements instanceof ElementList) return elements.commands();
  return [...batches(elements)].map((batch) => batch.map(elementText).join(", "));
}

function renderOp(at: string, op: NftOp, lines: string[]): void {
  switch (op.op) {
    case "add-table":
      lines.push(`add table ${at}`);
      return;
    case "drop-table":
      // `destroy` needs nft 1.0.8; add before delete is the same everywhere.
      lines.push(`add table ${at}`, `delete table ${at}`);
      return;
    case "add-chain":
      lines.push(`add chain ${at} ${op.chain}${renderHook(op.hook)}`);
      return;
    case "flush-chain":
      lines.push(`flush chain ${at} ${op.chain}`);
      return;
    case "delete-chain":
      lines.push(`delete chain ${at} ${op.chain}`);
      return;
    case "add-rule":
      lines.push(`add rule ${at} ${op.chain} ${op.rule.text} comment "${op.rule.tag}"`);
      return;
    case "add-container":
      lines.push(`add ${op.container.kind} ${at} ${op.container.name} { ${op.container.spec} ; }`);
      return;
    case "delete-container":
      lines.push(`delete ${op.kind} ${at} ${op.name}`);
      return;
    case "flush-container":
      lines.push(`flush ${op.kind} ${at} ${op.name}`);
      return;
    case "add-elements":
      for (const texts of commands(op.elements)) {
        lines.push(`add element ${at} ${op.container} { ${texts} }`);
      }
      return;
    case "delete-elements":
      for (const batch of batches(op.keys))
        lines.push(`delete element ${at} ${op.container} { ${batch.join(", ")} }`);
  }
}

function renderHook(hook: NftHook | undefined): string {
  if (hook === undefined) return "";
  return ` { type ${hook.type} hook ${hook.hook} priority ${hook.priority} ; }`;
}

/** The text for `nft -f -`. The kernel takes the whole of it or nothing. */
export function renderTransaction(table: NftTable, ops: readonly NftOp[]): string {
  const at = `${table.family} ${table.name}`;
  const lines: string[] = [];
  for (const op of ops) renderOp(at, op, lines);
  return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
}
