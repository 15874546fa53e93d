import { RefusedTextError, UnknownRuleError } from "./errors.ts";
import type { Remembered, Ruleset } from "./flow.ts";
import { parseElements } from "./nft-container.ts";
import { parsePlace } from "./nft-place.ts";
import { NftTraceTable } from "./nft-table.ts";

function braced(text: string): string {
  return text.slice(text.indexOf("{") + 1, text.lastIndexOf("}")).trim();
}

/** All tables that a text made, and what it did to them. */
export class NftTraceRuleset {
  readonly tables = new Map<string, NftTraceTable>();
  readonly #strict: boolean;

  /** @param strict As in {@link NftTraceTable}. */
  constructor(strict = true) {
    this.#strict = strict;
  }

  /** @throws {RefusedTextError} */
  table(family: string, name: string): NftTraceTable {
    const found = this.tables.get(`${family} ${name}`);
    if (found === undefined) throw new RefusedTextError(`there is no table ${family} ${name}`);
    return found;
  }

  addTable(family: string, name: string): NftTraceTable {
    const id = `${family} ${name}`;
    const known = this.tables.get(id) ?? new NftTraceTable(family, name, this.#strict);
    this.tables.set(id, known);
    return known;
  }

  /** The rules that packets of a family meet. */
  rules(family: "IPv4" | "IPv6"): Ruleset {
    const own = new Set(["inet", family === "IPv4" ? "ip" : "ip6"]);
    const tables = [...this.tables.values()].filter((table) => own.has(table.family));
    return { bases: tables.flatMap((table) => table.bases()) };
  }

  /** A set has seen what a packet left behind. */
  remember({ container, key }: Remembered): void {
    for (const { containers } of this.tables.values()) containers.get(container)?.add(key, "");
  }

  /**
   * Does what a script for `nft -f` says.
   *
   * @throws {RefusedTextError} where the kernel would refuse it; {@link UnknownRuleError}.
   */
  run(script: string): void {
    for (const line of script.split("\n")) if (line.trim() !== "") this.#command(line.trim());
  }

  #command(line: string): void {
    const [, verb = "", what = "", family = "", name = "", rest = ""] =
      /^(\w+) (\w+) (\w+) (\S+) ?(.*)$/.exec(line) ?? [];
    const known =
      what === "table"
        ? this.#tableCommand(verb, family, name)
        : objectCommand(this.table(family, name), `${verb} ${what}`, rest);
    if (!known) throw new UnknownRuleError(`${verb} ${what}`, line);
  }

  /** @returns False when there is no such command. */
  #tableCommand(verb: string, family: string, name: string): boolean {
    if (verb === "add") this.addTable(family, name);
    else if (verb === "delete") {
      this.table(family, name);
      this.tables.delete(`${family} ${name}`);
    } else return false;
    return true;
  }
}

/** @returns False when there is no such command. */
function objectCommand(table: NftTraceTable, command: string, rest: string): boolean {
  const name = firstWord(rest);
  switch (command) {
    case "add chain":
      table.addChain(name, rest.includes("{") ? parsePlace(braced(rest)) : undefined);
      return true;
    case "add set":
    case "add map":
      table.addContainer(command === "add map" ? "map" : "set", name);
      return true;
    case "add rule":
      table.addRule(name, rest.slice(name.length + 1));
      return true;
    case "add element":
      for (const [key, value] of parseElements(braced(rest))) table.container(name).add(key, value);
      return true;
    case "delete element":
      for (const [key] of parseElements(braced(rest))) table.container(name).delete(key);
      return true;
    case "flush chain":
      table.chain(name).rules.length = 0;
      return true;
    case "flush set":
    case "flush map":
      table.container(name).clear();
      return true;
    case "delete chain":
      table.chain(name);
      refuseIfUsed(table, name);
      table.chains.delete(name);
      return true;
    case "delete set":
    case "delete map":
      table.container(name);
      refuseIfUsed(table, `@${name}`);
      table.containers.delete(name);
      return true;
    default:
      return false;
  }
}

function firstWord(text: string): string {
  return text.split(" ", 1)[0] ?? "";
}

/** The kernel does not delete what something refers to. */
function refuseIfUsed(table: NftTraceTable, name: string): void {
  const asTarget = new RegExp(`(?:goto|jump) ${name}$`);
  for (const { rules, name: chain } of table.chains.values()) {
    for (const { text } of rules) {
      if (text.split(" ").includes(name) && chain !== name)
        throw new RefusedTextError(`${name} is in use by ${chain}: ${text}`);
    }
  }
  for (const { elements, name: container } of table.containers.values()) {
    for (const [key, value] of elements) {
      if (asTarget.test(value))
        throw new RefusedTextError(`${name} is in use by ${container} ${key}`);
    }
  }
}
