import { IptablesError, type IptablesProgram } from "../../../../src/netfilter/iptables.ts";
import type { RulesHost } from "../../../../src/proxy/iptables/apply.ts";

type Chains = Map<string, string[]>;

const system: Readonly<Record<string, readonly string[]>> = {
  mangle: ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
  filter: ["INPUT", "FORWARD", "OUTPUT"],
  nat: ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
};

function targetOf(rule: string): string {
  return / ?-j (\S+)/.exec(rule)?.[1] ?? "";
}

/** `iptables-restore --noflush`, as strict as the real one about chains, positions and deletions. */
export class FakeIptables {
  readonly program: IptablesProgram;
  readonly tables = new Map<string, Chains>();
  readonly sysctls = new Map([
    ["net/ipv4/conf/all/route_localnet", "0\n"],
    ["net/netfilter/nf_conntrack_tcp_be_liberal", "0\n"],
  ]);
  /** Texts that were restored, refused ones too. */
  readonly texts: string[] = [];
  saves = 0;
  /** What the next restores fail with, in order. */
  readonly failures: Error[] = [];

  constructor(variant: IptablesProgram["variant"] = "nf_tables") {
    this.program = { version: "1.8.9", variant, suffix: "" };
    this.reset();
  }

  /** Everything is gone, as after `iptables -F` and `-X` in all tables. */
  reset(): void {
    for (const [table, names] of Object.entries(system)) {
      this.tables.set(table, new Map(names.map((name) => [name, []])));
    }
  }

  chain(table: string, name: string): string[] {
    const rules = this.tables.get(table)?.get(name);
    if (rules === undefined) throw new Error(`no chain ${table} ${name}`);
    return rules;
  }

  async restore(text: string): Promise<void> {
    this.texts.push(text);
    const failure = this.failures.shift();
    if (failure !== undefined) throw failure;
    let table = "";
    let chains: Chains = new Map();
    text.split("\n").forEach((line, index) => {
      const fail = (why: string): never => {
        throw new IptablesError("iptables-restore", {
          exitCode: 1,
          stderr: `iptables-restore: line ${index + 1} failed: ${why}: ${line}`,
        });
      };
      if (line === "") return;
      if (line.startsWith("*")) {
        table = line.slice(1);
        chains = new Map(
          [...(this.tables.get(table) ?? [])].map(([name, rules]) => [name, [...rules]]),
        );
      } else if (line === "COMMIT") {
        this.tables.set(table, chains);
      } else if (line.startsWith(":")) {
        chains.set(line.slice(1).split(" ")[0] ?? "", []);
      } else {
        change(chains, line, fail);
      }
    });
  }

  async save(table: string): Promise<string> {
    this.saves += 1;
    const chains = [...(this.tables.get(table) ?? [])];
    return [
      `*${table}`,
      ...chains.map(([name]) => `:${name} - [0:0]`),
      ...chains.flatMap(([name, rules]) => rules.map((rule) => `-A ${name} ${rule}`.trimEnd())),
      "COMMIT",
      "",
    ].join("\n");
  }

  async list(table: string, chain: string): Promise<string | undefined> {
    const rules = this.tables.get(table)?.get(chain);
    if (rules === undefined) return undefined;
    return [`-N ${chain}`, ...rules.map((rule) => `-A ${chain} ${rule}`), ""].join("\n");
  }

  host(): RulesHost {
    return {
      open: async () => this,
      readSysctl: async (name) => {
        const value = this.sysctls.get(name);
        if (value === undefined) throw new Error(`ENOENT ${name}`);
        return value;
      },
      writeSysctl: async (name, value) => {
        this.sysctls.set(name, `${value}\n`);
      },
    };
  }
}

type Fail = (why: string) => never;

function insert(rules: string[], rule: string, at: number, fail: Fail): void {
  if (at > rules.length + 1) fail("index of insertion too big");
  rules.splice(at - 1, 0, rule);
}

function remove(rules: string[], rule: string, fail: Fail): void {
  const at = rules.indexOf(rule);
  if (at < 0) fail("no such rule");
  rules.splice(at, 1);
}

function deleteChain(chains: Chains, name: string, fail: Fail): void {
  if ((chains.get(name) ?? []).length > 0) fail("not empty");
  const used = [...chains.values()].some((all) => all.some((one) => targetOf(one) === name));
  if (used) fail("too many links");
  chains.delete(name);
}

function change(chains: Chains, line: string, fail: Fail): void {
  const [, command = "", name = "", rest = ""] =
    /^(-[AIDX]) (\S+) ?(.*)$/.exec(line) ?? fail("syntax");
  const rules = chains.get(name) ?? fail("no such chain");
  const position = command === "-I" ? /^(\d+) (.*)$/.exec(rest) : null;
  const rule = position?.[2] ?? rest;
  const target = targetOf(rule);
  if (target.startsWith("KUBE-") && !chains.has(target)) fail("no such target");
  if (command === "-A") rules.push(rule);
  if (command === "-I") insert(rules, rule, Number(position?.[1] ?? 1), fail);
  if (command === "-D") remove(rules, rule, fail);
  if (command === "-X") deleteChain(chains, name, fail);
}
