import { RefusedTextError } from "../../../../src/proxy/trace/errors.ts";
import { IptablesTraceRuleset } from "../../../../src/proxy/trace/iptables-text.ts";
import type { RulesHost } from "../../../../src/proxy/iptables/apply.ts";

/** A machine whose iptables is the simulator: what the backend sends it can be executed at once. */
export class SimulatedIptables implements RulesHost {
  readonly rules = new IptablesTraceRuleset({ program: "iptables" });
  readonly #sysctls = new Map([
    ["net/ipv4/conf/all/route_localnet", "0"],
    ["net/netfilter/nf_conntrack_tcp_be_liberal", "0"],
  ]);

  async open(): ReturnType<RulesHost["open"]> {
    return {
      program: { version: "1.8.9", variant: "nf_tables", suffix: "" },
      restore: async (text) => this.rules.run(text),
      save: async (table) => this.rules.save(table),
      list: async (table, chain) => this.rules.list(table, chain),
    };
  }

  async readSysctl(name: string): Promise<string> {
    const value = this.#sysctls.get(name);
    if (value === undefined) throw new RefusedTextError(name);
    return value;
  }

  async writeSysctl(name: string, value: string): Promise<void> {
    this.#sysctls.set(name, value);
  }
}
