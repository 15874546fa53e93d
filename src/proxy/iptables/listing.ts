import type { Table } from "./rules.ts";

/** What the kernel has: by table and chain, what stands behind `-A CHAIN`. Chains without rules are there too. */
export type Listing = ReadonlyMap<Table, ReadonlyMap<string, readonly string[]>>;

/** Reads what `iptables-save` prints of one table. */
export function parseSave(text: string): ReadonlyMap<string, readonly string[]> {
  const chains = new Map<string, string[]>();
  for (const line of text.split("\n")) {
    if (line.startsWith(":")) chains.set(line.slice(1, line.indexOf(" ")), []);
    if (!line.startsWith("-A ")) continue;
    const end = line.indexOf(" ", 3);
    const name = end < 0 ? line.slice(3) : line.slice(3, end);
    const rule = end < 0 ? "" : line.slice(end + 1).trimEnd();
    const rules = chains.get(name);
    if (rules === undefined) chains.set(name, [rule]);
    else rules.push(rule);
  }
  return chains;
}

const word = /"((?:[^"\\]|\\.)*)"|(\S+)/g;

function words(text: string): string[] {
  return [...text.matchAll(word)].map(([, quoted, plain]) => quoted ?? plain ?? "");
}

/** Options that listings add, or leave out, without any difference. */
const defaults = new Set([
  "--rsource",
  "--reject-with icmp-port-unreachable",
  "--reject-with icmp6-port-unreachable",
  "--mask 255.255.255.255",
  "--mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
]);

function canonicalOption(option: string): string | undefined {
  const [name = "", value = "", ...rest] = option.replace(/^! /, "").split(" ");
  const not = option.startsWith("! ") ? "! " : "";
  switch (name) {
    case "-m":
    case "--comment":
      return undefined;
    case "-s":
    case "-d":
      return `${not}${name} ${value.replace(value.includes(":") ? /\/128$/ : /\/32$/, "")}`;
    case "--or-mark":
      return `--set-xmark ${hex(value)}/${hex(value)}`;
    case "--xor-mark":
      return `--set-xmark ${hex(value)}/0x0`;
    case "--probability":
      // The kernel keeps it in units of 2^-31.
      return `${name} ${Number(value).toFixed(8)}`;
    case "--ctstate":
      return `${not}${name} ${value.split(",").toSorted().join()}`;
    default: {
      const plain = [name, value, ...rest].join(" ").trim();
      return defaults.has(plain) ? undefined : `${not}${plain}`;
    }
  }
}

function hex(text: string): string {
  return `0x${Number(text).toString(16)}`;
}

/**
 * A rule in a form that is the same for our text and for a listing's of any iptables, and differs for rules that do
 * different things. Comments are left out.
 */
export function canonicalRule(text: string): string {
  const options: string[] = [];
  for (const part of words(text)) {
    const last = options.at(-1);
    if (last === undefined || part === "!" || (part.startsWith("-") && last !== "!"))
      options.push(part);
    else options[options.length - 1] = `${last} ${part}`;
  }
  return options
    .flatMap((option) => canonicalOption(option) ?? [])
    .toSorted()
    .join(" ");
}

/** What a rule says to people; empty for one that says nothing. */
export function commentOf(text: string): string {
  const [, quoted, plain = ""] = / ?--comment (?:"([^"]*)"|(\S+))/.exec(text) ?? [];
  return quoted ?? plain;
}

/** The chain that a rule leads to, or its verdict; empty for a rule that only counts. */
export function targetOf(text: string): string {
  return /(?:^| )-[jg] (\S+)/.exec(text)?.[1] ?? "";
}
