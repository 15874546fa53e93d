import { formatCidr, type IPFamily, ipFamily } from "../lib/cidr.ts";
import { SetupError } from "../lib/errors.ts";
import { NftError } from "../netfilter/errors.ts";
import { dropEmptyChains } from "../netfilter/empty-chains.ts";
import {
  installedIptables,
  Iptables,
  IptablesError,
  type IptablesProgram,
  mayHaveRules,
} from "../netfilter/iptables.ts";
import { type HostPortMapping, podsOf } from "./host-ports.ts";
import { loopbackOf, networksKept, type NodeRules, type RuleContext } from "./node-rules.ts";

const tables = ["mangle", "nat", "filter"] as const;
type Table = (typeof tables)[number];

/** Rules in the words of `iptables-save`, so that they can be compared with what it prints. */
interface TableRules {
  /** Our chains with all that is in them. */
  readonly chains: ReadonlyMap<string, readonly string[]>;
  readonly jumps: readonly Jump[];
}

/** A way from one of the system's chains to one of ours. */
interface Jump {
  readonly from: string;
  readonly rule: string;
  /** Ours is asked after the rules that go to this chain, whoever wrote them. */
  readonly after?: string;
}

const noRules: TableRules = { chains: new Map(), jumps: [] };

function chainNames(prefix: string): Readonly<Record<ChainKey, string>> {
  return {
    prerouting: `${prefix}-PREROUTING`,
    output: `${prefix}-OUTPUT`,
    hostPorts: `${prefix}-HOSTPORTS`,
    postrouting: `${prefix}-POSTROUTING`,
    hairpin: `${prefix}-HAIRPIN`,
    leaving: `${prefix}-LEAVING`,
    guard: `${prefix}-GUARD`,
    redirects: `${prefix}-REDIRECTS`,
  };
}

type ChainKey =
  | "prerouting"
  | "output"
  | "hostPorts"
  | "postrouting"
  | "hairpin"
  | "leaving"
  | "guard"
  | "redirects";

/** Our chains in one table; others of ours, such as those that accept forwarded traffic, are looked after elsewhere. */
function ownChains(table: Table, prefix: string): readonly string[] {
  const { guard, redirects, ...nat } = chainNames(prefix);
  switch (table) {
    case "mangle":
      return [guard];
    case "filter":
      return [redirects];
    case "nat":
      return Object.values(nat);
  }
}

function single(ip: string): string {
  return `${ip}/${ipFamily(ip) === "IPv6" ? 128 : 32}`;
}

function hostPortRule(mapping: HostPortMapping): string {
  const { address, hostPort, podIP, containerPort } = mapping;
  const protocol = mapping.protocol.toLowerCase();
  const target = podIP.includes(":") ? `[${podIP}]:${containerPort}` : `${podIP}:${containerPort}`;
  const bound = address === "" ? "" : `-d ${single(address)} `;
  return `${bound}-p ${protocol} -m ${protocol} --dport ${hostPort} -j DNAT --to-destination ${target}`;
}

function hairpinRule(ip: string): string {
  const own = single(ip);
  return `-s ${own} -d ${own} -m conntrack --ctstate DNAT -j MASQUERADE --random-fully`;
}

/** The chains that come and go with host ports. */
function hostPortChains(
  prefix: string,
  mappings: readonly HostPortMapping[],
): ReadonlyMap<string, readonly string[]> {
  const names = chainNames(prefix);
  const all = mappings.filter(({ address }) => address === "");
  const single = mappings.filter(({ address }) => address !== "");
  // Services of the node itself have the other addresses of the loopback, such as its name server on 127.0.0.53.
  const between = all.some(({ podIP }) => ipFamily(podIP) === "IPv4")
    ? ["-m iprange --dst-range 127.0.0.2-127.255.255.255 -j RETURN"]
    : [];
  return new Map([
    [names.hostPorts, [...single.map(hostPortRule), ...between, ...all.map(hostPortRule)]],
    [names.hairpin, podsOf(mappings).map(hairpinRule)],
  ]);
}

/** All rules of one family, by table. Pure. */
export function iptablesRules(
  context: RuleContext,
  mappings: readonly HostPortMapping[],
  prefix: string,
): ReadonlyMap<Table, TableRules> {
  const { bridge, family, localAddresses = [] } = context;
  const names = chainNames(prefix);
  const loopback = family === "IPv4" ? loopbackOf(family) : "::1/128";
  const own = localAddresses.filter((ip) => ipFamily(ip) === family);
  const serve = [...own.map((ip) => `-d ${single(ip)} -j RETURN`), `-j ${names.hostPorts}`];
  const local = "-m addrtype --dst-type LOCAL";
  const redirect =
    family === "IPv4" ? "-p icmp -m icmp --icmp-type 5" : "-p ipv6-icmp -m icmp6 --icmpv6-type 137";
  return new Map<Table, TableRules>([
    [
      // Before conntrack makes of answers what the node asked for: those of host ports go to the loopback too.
      "mangle",
      {
        chains: new Map([[names.guard, [`-d ${loopback} -i ${bridge} -j DROP`]]]),
        jumps: [{ from: "PREROUTING", rule: `-j ${names.guard}` }],
      },
    ],
    [
      "nat",
      {
        chains: new Map([
          // What somebody next to the node sends to 127.0.0.1 gets past the kernel's check of it, which comes after this.
          [names.prerouting, [`-d ${loopback} -j RETURN`, ...serve]],
          // IPv6 has no route_localnet: answers to ::1 do not come through. So it is refused, instead of never answered.
          [names.output, family === "IPv6" ? [`-s ${loopback} -j RETURN`, ...serve] : serve],
          [
            names.postrouting,
            [
              ...(family === "IPv4"
                ? [`-s ${loopback} -o ${bridge} -j MASQUERADE --random-fully`]
                : []),
              `-j ${names.hairpin}`,
              `-s ${formatCidr(context.podCIDR)} -j ${names.leaving}`,
            ],
          ],
          [
            names.leaving,
            [
              ...networksKept(context).map((network) => `-d ${network} -j RETURN`),
              "-j MASQUERADE --random-fully",
            ],
          ],
          ...hostPortChains(prefix, mappings),
        ]),
        jumps: [
          // Only on the node's own addresses: else a pod could take the traffic to any address for itself.
          {
            from: "PREROUTING",
            rule: `${local} -j ${names.prerouting}`,
            after: "KUBE-SERVICES",
          },
          { from: "OUTPUT", rule: `${local} -j ${names.output}`, after: "KUBE-SERVICES" },
          { from: "POSTROUTING", rule: `-j ${names.postrouting}`, after: "KUBE-POSTROUTING" },
        ],
      },
    ],
    [
      "filter",
      {
        chains: new Map([[names.redirects, [`-o ${bridge} ${redirect} -j DROP`]]]),
        jumps: [{ from: "OUTPUT", rule: `-j ${names.redirects}` }],
      },
    ],
  ]);
}

/** Reads what `iptables-save` prints of one table: by chain, what stands behind `-A CHAIN`. */
function parseSave(text: string): ReadonlyMap<string, readonly string[]> {
  const chains = new Map<string, string[]>();
  for (const line of text.split("\n")) {
    const [, declared] = /^:(\S+) /.exec(line) ?? [];
    if (declared !== undefined) chains.set(declared, []);
    const [, name = "", rule = ""] = /^-A (\S+) ?(.*?)\s*$/.exec(line) ?? [];
    chains.get(name)?.push(rule);
  }
  return chains;
}

function jumpIsRight({ after, from, rule }: Jump, listed: ReturnType<typeof parseSave>): boolean {
  const rules = listed.get(from) ?? [];
  const at = rules.indexOf(rule);
  if (at < 0 || rules.lastIndexOf(rule) !== at) return false;
  return after === undefined || rules.findLastIndex((one) => goesTo(one, after)) < at;
}

function goesTo(rule: string, chain: string): boolean {
  return new RegExp(`-[jg] ${chain}$`).test(rule);
}

/**
 * The text for `iptables-restore --noflush` that brings one table from what is listed to what is wanted; empty when it is
 * right. Pure.
 *
 * @param isOwn Which chains are ours: those that are not wanted are removed.
 */
export function iptablesChanges(
  table: string,
  { chains, jumps }: TableRules,
  listing: string,
  isOwn: (chain: string) => boolean,
): string {
  const listed = parseSave(listing);
  const wrong = [...chains].filter(
    ([name, rules]) => listed.get(name)?.join("\n") !== rules.join("\n"),
  );
  const dead = [...listed.keys()].filter((name) => isOwn(name) && !chains.has(name));
  const right = new Set(jumps.filter((jump) => jumpIsRight(jump, listed)));
  const old = [...listed].flatMap(([from, rules]) =>
    isOwn(from)
      ? []
      : rules
          .filter((rule) => isOwn(/-[jg] (\S+)$/.exec(rule)?.[1] ?? ""))
          .filter((rule) => ![...right].some((jump) => jump.from === from && jump.rule === rule))
          .map((rule) => `-D ${from} ${rule}`),
  );
  const missing = jumps.filter((jump) => !right.has(jump));
  if (wrong.length + dead.length + old.length + missing.length === 0) return "";
  return [
    `*${table}`,
    ...wrong.map(([name]) => `:${name} - [0:0]`),
    // Naming a chain empties it: so it can be deleted.
    ...dead.map((name) => `:${name} - [0:0]`),
    ...wrong.flatMap(([name, rules]) => rules.map((rule) => `-A ${name} ${rule}`)),
    ...old,
    ...missing.map(({ from, rule }) => `-A ${from} ${rule}`),
    ...dead.map((name) => `-X ${name}`),
    "COMMIT",
    "",
  ].join("\n");
}

/** {@link NodeRules} in chains of iptables' tables, for machines whose nft cannot do them. */
export class IptablesNodeRules implements NodeRules {
  readonly #iptables: Iptables;
  readonly #prefix: string;
  /** What was asked for last in a table, and what was still found different in its listing after that. */
  readonly #odd = new Map<Table, { readonly wanted: string; readonly left: string }>();

  /** @param prefix Of the names of our chains; 15 characters at most. */
  constructor(iptables: Iptables, prefix: string) {
    this.#iptables = iptables;
    this.#prefix = prefix;
  }

  async #changes(table: Table, rules: TableRules, signal: AbortSignal): Promise<string> {
    const listing = await this.#iptables.save(table, signal);
    const own = new Set(ownChains(table, this.#prefix));
    return iptablesChanges(table, rules, listing, (chain) => own.has(chain));
  }

  async ensure(
    context: RuleContext,
    mappings: readonly HostPortMapping[],
    signal: AbortSignal,
  ): Promise<boolean> {
    let changed = false;
    for (const [table, rules] of iptablesRules(context, mappings, this.#prefix)) {
      const text = await this.#changes(table, rules, signal);
      const wanted = JSON.stringify([[...rules.chains], rules.jumps]);
      const odd = this.#odd.get(table);
      // An iptables that prints something in another way must not make us write it for ever.
      if (text === "" || (odd?.wanted === wanted && odd.left === text)) continue;
      await this.#iptables.restore(text, signal);
      changed = true;
      this.#odd.set(table, { wanted, left: await this.#changes(table, rules, signal) });
    }
    return changed;
  }

  async change(
    _from: readonly HostPortMapping[],
    to: readonly HostPortMapping[],
    signal: AbortSignal,
  ): Promise<boolean> {
    const chains = hostPortChains(this.#prefix, to);
    const text = [
      "*nat",
      ...[...chains.keys()].map((name) => `:${name} - [0:0]`),
      ...[...chains].flatMap(([name, rules]) => rules.map((rule) => `-A ${name} ${rule}`)),
      "COMMIT",
      "",
    ].join("\n");
    try {
      await this.#iptables.restore(text, signal);
      return true;
    } catch (error) {
      if (!(error instanceof IptablesError)) throw error;
      return false;
    }
  }

  async remove(signal: AbortSignal): Promise<void> {
    for (const table of tables) {
      try {
        const text = await this.#changes(table, noRules, signal);
        if (text === "") continue;
        await this.#iptables.restore(text, signal);
        await dropEmptyChains(this.#iptables, table, true, signal);
      } catch (error) {
        // A kernel without this table has none of our rules either; and empty chains stay where nft is of no use.
        if (!(error instanceof SetupError || error instanceof NftError)) throw error;
      }
    }
  }
}

/**
 * Removes what {@link IptablesNodeRules} wrote, in one family and every kind of iptables that is installed.
 *
 * @param spare The kind whose rules stay, because they are in use.
 */
export async function removeIptablesNodeRules(
  family: IPFamily,
  prefix: string,
  signal: AbortSignal,
  spare?: IptablesProgram["variant"],
): Promise<void> {
  for (const program of await installedIptables(signal)) {
    if (program.variant === spare || !(await mayHaveRules(program, family))) continue;
    await new IptablesNodeRules(new Iptables(family, program), prefix).remove(signal);
  }
}
