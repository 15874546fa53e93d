import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { type IPFamily, ipFamily, parseCidr } from "../../lib/cidr.ts";
import { errorCode, ExecError, ParseError, SetupError } from "../../lib/errors.ts";
import { exec, execResult } from "../../lib/exec.ts";
import { asRecord, isRecord, optionalNumber, optionalString } from "../../lib/guard.ts";
import { readIfThere } from "../../lib/read-if-there.ts";
import { namesIn } from "../../lib/names-in.ts";
import { classifyNftFailure, explainMissingProgram, NftError } from "../../netfilter/errors.ts";
import { installedIptables } from "../../netfilter/iptables.ts";
import { ruleTag } from "../rule-tag.ts";
import type { BaseChain, Ruleset } from "./flow.ts";
import { Host, type HostFacts, type Route } from "./host.ts";
import { IptablesTraceRuleset } from "./iptables-text.ts";
import { readListing } from "./nft-listing.ts";
import { NftTraceRuleset } from "./nft-text.ts";
import { isOwnRule } from "./recognise.ts";

/** The rules that packets of one family meet on this machine. */
export interface KernelRules {
  readonly rules: Ruleset;
  /** What was read, for people. */
  readonly read: readonly string[];
  /** Chains that packets meet and that are not executed here. */
  readonly notSimulated: readonly string[];
  /** Rules in our table that are not as Remora writes them. */
  readonly notOwn: readonly string[];
}

const ownChain = /^(KUBE|REMORA)-/;

async function nftOutput(
  args: readonly string[],
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    const result = await execResult(["nft", ...args], { signal });
    if (result.exitCode === 0) return result.stdout;
    const failure = classifyNftFailure(result.stderr);
    if (failure instanceof NftError && failure.failure === "missing") return undefined;
    throw failure;
  } catch (error) {
    throw explainMissingProgram(error, "nft", "nftables");
  }
}

/**
 * Reads the rules of one family: our nftables tables, and all of iptables in both kinds.
 *
 * @param tables Those that are there are read.
 * @throws {SetupError} without the right to; {@link UnknownRuleError} for rules of ours that are not understood;
 *   {@link NftError}, {@link ExecError}, `AbortError`.
 */
export async function readKernelRules(
  family: IPFamily,
  tables: readonly string[],
  signal: AbortSignal,
): Promise<KernelRules> {
  const nftFamily = family === "IPv4" ? "ip" : "ip6";
  const read: string[] = [];
  const notOwn: string[] = [];
  const bases: BaseChain[] = [];
  for (const table of tables) {
    const listing = await nftOutput(["list", "table", nftFamily, table], signal);
    if (listing === undefined) continue;
    const own = new NftTraceRuleset(false);
    readListing(listing, own);
    notOwn.push(...foreignRules(own));
    read.push(`nft ${nftFamily} ${table}: ${countRules(own)} rules`);
    bases.push(...own.rules(family).bases);
  }
  const translated = new Set<string>();
  for (const { suffix, variant } of await installedIptables(signal)) {
    const program = `${family === "IPv4" ? "iptables" : "ip6tables"}${suffix}`;
    const text = await saved(`${program}-save`, signal);
    const rules = (text.match(/^-A /gm) ?? []).length;
    if (variant === "nf_tables") {
      for (const [, table = ""] of text.matchAll(/^\*(\w+)$/gm)) translated.add(table);
    }
    if (rules === 0 && !/^:\w+ DROP/m.test(text)) continue;
    bases.push(...(await iptablesRules(program, text, signal)).bases);
    read.push(`${program} (${variant}): ${rules} rules`);
  }
  const hooks = await nftOutput(["-j", "list", "chains"], signal);
  const isOurs = (table: string): boolean => tables.includes(table) || translated.has(table);
  return {
    rules: { bases },
    read,
    notSimulated: foreignHooks(hooks ?? "{}", nftFamily, isOurs),
    notOwn,
  };
}

function countRules(rules: NftTraceRuleset): number {
  let count = 0;
  for (const table of rules.tables.values())
    for (const chain of table.chains.values()) count += chain.rules.length;
  return count;
}

function foreignRules(rules: NftTraceRuleset): readonly string[] {
  const found: string[] = [];
  for (const table of rules.tables.values()) {
    for (const { name, rules: own } of table.chains.values()) {
      for (const { text, tag } of own) {
        if (!isOwnRule(text, tag)) {
          found.push(`${name}: ${text}${tag === "" ? "" : ` (tag ${tag}, not ${ruleTag(text)})`}`);
        }
      }
    }
  }
  return found;
}

/** Base chains of others that packets of the family meet. */
function foreignHooks(
  json: string,
  family: "ip" | "ip6",
  isOurs: (table: string) => boolean,
): readonly string[] {
  const items: unknown = asRecord(JSON.parse(json), "$")["nftables"] ?? [];
  if (!Array.isArray(items)) throw new ParseError("$.nftables", "an array");
  return items.flatMap((item: unknown): string[] => {
    const chain = isRecord(item) ? item["chain"] : undefined;
    if (!isRecord(chain)) return [];
    const hook = optionalString(chain["hook"]);
    const of = optionalString(chain["family"]) ?? "";
    const table = optionalString(chain["table"]) ?? "";
    const meets = [family, "inet", "bridge", "netdev"].includes(of);
    if (hook === undefined || !meets || (of === family && isOurs(table))) return [];
    const policy = chain["policy"] === "drop" ? ", policy drop" : "";
    const place = `${optionalString(chain["type"]) ?? "?"} hook ${hook}, priority ${optionalNumber(chain["prio"]) ?? 0}`;
    return [`nft ${of} ${table} ${optionalString(chain["name"]) ?? ""} (${place}${policy})`];
  });
}

async function saved(program: string, signal: AbortSignal): Promise<string> {
  const result = await execResult([program], { signal });
  if (result.exitCode === 0) return result.stdout;
  if (/Permission denied|you must be root/i.test(result.stderr)) {
    throw new SetupError("packet rules may only be read by root: run this with sudo");
  }
  // A kernel without the tables has no rules in them.
  if (/can't initialize|Could not fetch|Cannot initialize|not supported/i.test(result.stderr))
    return "";
  throw new ExecError([program], result.exitCode, result.stderr);
}

async function iptablesRules(program: string, text: string, signal: AbortSignal): Promise<Ruleset> {
  const rules = new IptablesTraceRuleset({ program, strict: (chain) => ownChain.test(chain) });
  if (text.includes("-m recent ")) {
    for (const { list, ip, secondsAgo } of await recentlySeen())
      rules.remember({ container: list, key: ip }, secondsAgo);
  }
  if (text.includes("--match-set ")) {
    for (const [name, members] of await ipsets(signal)) rules.setMembers(name, members);
  }
  rules.run(text);
  return rules.rules();
}

async function ipsets(signal: AbortSignal): Promise<ReadonlyMap<string, readonly string[]>> {
  const sets = new Map<string, string[]>();
  let text = "";
  try {
    text = (await execResult(["ipset", "save"], { signal })).stdout;
  } catch (error) {
    // Without the program nothing is known of sets, and rules that ask for them are not understood.
    if (errorCode(error) !== "ENOENT") throw error;
  }
  for (const line of text.split("\n")) {
    const [verb, name = "", member = ""] = line.split(" ");
    if (verb === "create") sets.set(name, []);
    if (verb === "add") sets.get(name)?.push(member);
  }
  return sets;
}

const recentDirectory = "/proc/net/xt_recent";

interface Seen {
  readonly list: string;
  readonly ip: string;
  readonly secondsAgo: number;
}

/** Lists of the module `recent`. Their times are in ticks of the kernel. */
async function recentlySeen(): Promise<readonly Seen[]> {
  const clock = await kernelTicks();
  const seen: Seen[] = [];
  for (const list of await namesIn(recentDirectory)) {
    const text = await readFile(join(recentDirectory, list), "utf8");
    for (const [, ip = "", last = "0"] of text.matchAll(/^src=(\S+) .*?last_seen: (\d+)/gm)) {
      seen.push({ list, ip, secondsAgo: (clock.now - Number(last)) / clock.perSecond });
    }
  }
  return seen;
}

/** The kernel counts ticks from five minutes before an overflow of 32 bits. */
const startTicks = 2 ** 32;
const startSeconds = 300;

async function kernelTicks(): Promise<{ readonly now: number; readonly perSecond: number }> {
  const timers = await readFile("/proc/timer_list", "utf8");
  const uptime = Number.parseFloat(await readFile("/proc/uptime", "utf8"));
  const now = Number(/^jiffies: (\d+)/m.exec(timers)?.[1]);
  if (Number.isNaN(now)) throw new ParseError("/proc/timer_list", "a line `jiffies: N`");
  const about = (now - startTicks) / (uptime - startSeconds);
  const perSecond = [100, 250, 300, 1000].toSorted(
    (a, b) => Math.abs(a - about) - Math.abs(b - about),
  );
  return { now, perSecond: perSecond[0] ?? 250 };
}

interface ListedRoute {
  readonly type: string;
  readonly to: string;
  readonly device: string | undefined;
}

async function listRoutes(
  flag: "-4" | "-6",
  table: string,
  signal: AbortSignal,
): Promise<readonly ListedRoute[]> {
  const text = await exec(["ip", "-j", flag, "route", "show", "table", table], { signal });
  const listed: unknown = JSON.parse(text.trim() === "" ? "[]" : text);
  if (!Array.isArray(listed)) throw new ParseError("ip route", "an array");
  return listed.flatMap((item: unknown): ListedRoute[] => {
    if (!isRecord(item)) return [];
    const hops: unknown = item["nexthops"];
    const first: unknown = Array.isArray(hops) ? hops[0] : undefined;
    const hop = isRecord(first) ? first : item;
    return [
      {
        type: optionalString(item["type"]) ?? "unicast",
        to: optionalString(item["dst"]) ?? "",
        device: optionalString(hop["dev"]),
      },
    ];
  });
}

/** Interfaces that pass loopback addresses on; `all` stands for all. */
async function localnetDevices(): Promise<readonly string[]> {
  const root = "/proc/sys/net/ipv4/conf";
  const open: string[] = [];
  for (const device of await namesIn(root)) {
    const text = await readIfThere(join(root, device, "route_localnet"));
    if (text?.trim() === "1") open.push(device);
  }
  return open;
}

/**
 * Addresses and routes of this machine, as its main and local routing tables say.
 *
 * @throws {ExecError}, `AbortError`.
 */
export async function readHost(family: IPFamily, signal: AbortSignal): Promise<Host> {
  const flag = family === "IPv4" ? "-4" : "-6";
  const local = await listRoutes(flag, "local", signal);
  const main = await listRoutes(flag, "main", signal);
  const everything = family === "IPv4" ? "0.0.0.0/0" : "::/0";
  const full = family === "IPv4" ? 32 : 128;
  const network = (to: string): string => {
    if (to === "default") return everything;
    return ipFamily(to) === undefined ? to : `${to}/${full}`;
  };
  const routes = main.map(({ type, to, device }): Route => ({
    to: parseCidr(network(to)),
    device: type === "unicast" ? device : undefined,
  }));
  const ofType = (type: string): readonly string[] =>
    local.flatMap((one) => (one.type === type ? [one.to] : []));
  const openLocalnet = family === "IPv4" ? await localnetDevices() : [];
  const facts: HostFacts = {
    addresses: ofType("local"),
    broadcasts: ofType("broadcast"),
    routes,
    routeLocalnet: openLocalnet.includes("all"),
    localnetDevices: openLocalnet,
  };
  return new Host(facts);
}

/**
 * The address that the node itself uses towards another one; undefined when there is no way.
 *
 * @throws `AbortError`.
 */
export async function sourceTowards(ip: string, signal: AbortSignal): Promise<string | undefined> {
  const result = await execResult(["ip", "-j", "route", "get", ip], { signal });
  if (result.exitCode !== 0) return undefined;
  const listed: unknown = JSON.parse(result.stdout);
  const first: unknown = Array.isArray(listed) ? listed[0] : undefined;
  return isRecord(first) ? optionalString(first["prefsrc"]) : undefined;
}
