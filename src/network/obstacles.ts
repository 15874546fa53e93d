import { errorCode } from "../lib/errors.ts";
import { execResult } from "../lib/exec.ts";
import { isRecord, optionalString } from "../lib/guard.ts";
import type { AcceptReport } from "../netfilter/forward-accept.ts";
import { judgeIptables } from "../netfilter/iptables-judge.ts";
import { type BaseChain, judgeNft, parseBaseChains } from "../netfilter/nft-judge.ts";
import {
  describeObstacle,
  type FirewallNeeds,
  type NeededFlow,
  neededFlows,
  type Obstacle,
} from "./firewall-plan.ts";

/** Tables that need no look: ours and those of another Service proxy, which may be very large. */
const known = /^(remora-|kube-proxy$)/;

async function nft(args: readonly string[], signal: AbortSignal): Promise<string> {
  try {
    const { exitCode, stdout } = await execResult(["nft", ...args], { signal });
    return exitCode === 0 ? stdout : "";
  } catch (error) {
    // No nft: whoever has made rules has made them with iptables.
    if (errorCode(error) === "ENOENT") return "";
    throw error;
  }
}

interface ForeignTable {
  readonly family: string;
  readonly name: string;
}

/** Whether iptables keeps its rules in a table of this name; somebody else may do so beside it. */
function isIptablesTable({ family, name }: ForeignTable): boolean {
  return family !== "inet" && ["filter", "nat", "mangle", "raw", "security"].includes(name);
}

/** Reads `nft -j list tables`. */
export function parseForeignTables(
  value: unknown,
  isIptables: (family: string) => boolean,
): readonly ForeignTable[] {
  const items: unknown = isRecord(value) ? value["nftables"] : undefined;
  return (Array.isArray(items) ? items : []).flatMap((item: unknown): ForeignTable[] => {
    const table = isRecord(item) && isRecord(item["table"]) ? item["table"] : {};
    const family = optionalString(table["family"]) ?? "";
    const name = optionalString(table["name"]) ?? "";
    if (!["ip", "ip6", "inet"].includes(family) || known.test(name)) return [];
    return isIptablesTable({ family, name }) && isIptables(family) ? [] : [{ family, name }];
  });
}

/** A table of somebody else which can drop packets that are forwarded or for the node. */
interface ForeignListing {
  readonly table: ForeignTable;
  readonly listing: unknown;
  readonly chains: readonly BaseChain[];
}

async function readForeign(
  isIptables: (family: string) => boolean,
  signal: AbortSignal,
): Promise<readonly ForeignListing[]> {
  const found: ForeignListing[] = [];
  const text = await nft(["-j", "list", "tables"], signal);
  if (text === "") return found;
  for (const table of parseForeignTables(JSON.parse(text), isIptables)) {
    const content = await nft(["-j", "list", "table", table.family, table.name], signal);
    if (content === "") continue;
    const listing: unknown = JSON.parse(content);
    const ofIptables = new Set(isIptablesTable(table) ? ["FORWARD", "INPUT"] : []);
    const chains = parseBaseChains(listing).filter(({ name }) => !ofIptables.has(name));
    if (chains.length > 0) found.push({ table, listing, chains });
  }
  return found;
}

/** The text of a rule, as nft prints it. */
async function ruleText(table: ForeignTable, by: string, signal: AbortSignal): Promise<string> {
  if (by === "policy") return by;
  // Without counters: the sentence that is made of it is told again when it changes.
  const listing = await nft(["-s", "-a", "list", "table", table.family, table.name], signal);
  const line = listing.split("\n").find((text) => text.endsWith(` # ${by}`));
  return line === undefined ? by : line.slice(0, line.lastIndexOf(" # ")).trim();
}

function isOurFamily(table: ForeignTable, needs: FirewallNeeds): boolean {
  return table.family === "inet" || (table.family === "ip") === (needs.family === "IPv4");
}

async function nftObstacles(
  foreign: readonly ForeignListing[],
  needs: FirewallNeeds,
  signal: AbortSignal,
): Promise<readonly Obstacle[]> {
  const flows = neededFlows(needs);
  const found = new Map<string, Obstacle>();
  for (const { chains, listing, table } of foreign) {
    if (!isOurFamily(table, needs)) continue;
    for (const chain of chains) {
      for (const flow of flows.filter(({ packet }) => packet.hook === chain.hook)) {
        const { by, verdict } = judgeNft(listing, chain, flow.packet);
        if (verdict !== "drop") continue;
        const key = `${table.family} ${table.name} ${chain.name} ${by}`;
        const earlier = found.get(key);
        found.set(key, {
          owner: table.name === "firewalld" ? "firewalld" : "nftables",
          hook: chain.hook,
          table: `${table.family} ${table.name}`,
          chain: chain.name,
          by: earlier?.by ?? (await ruleText(table, by, signal)),
          flows: [...(earlier?.flows ?? []), flow],
        });
      }
    }
  }
  return [...found.values()];
}

/** FORWARD needs no look: ours comes first in it. */
function iptablesObstacles(
  reports: readonly AcceptReport[],
  needs: FirewallNeeds,
): readonly Obstacle[] {
  // What pods ask the name server is let in by a rule of ours.
  const isAccepted = ({ packet }: NeededFlow): boolean =>
    packet.port === 53 && needs.nameServers.includes(packet.destination);
  const flows = neededFlows(needs).filter(
    (flow) => flow.packet.hook === "input" && !isAccepted(flow),
  );
  const found = new Map<string, Obstacle>();
  for (const { listing, program } of reports) {
    const table = `${needs.family === "IPv4" ? "iptables" : "ip6tables"}${program.suffix}`;
    for (const flow of flows) {
      const { by, verdict } = judgeIptables(listing, flow.packet);
      if (verdict !== "drop") continue;
      const key = `${table} ${by}`;
      const owner = /^-[AN] ufw-/m.test(listing) || by.includes("ufw-") ? "ufw" : "iptables";
      const earlier = found.get(key);
      found.set(key, {
        owner,
        hook: "input",
        table,
        chain: "INPUT",
        by,
        flows: [...(earlier?.flows ?? []), flow],
      });
    }
  }
  return [...found.values()];
}

/** What is known of one family after its accept rules were looked at. */
export interface FamilyLook {
  readonly needs: FirewallNeeds;
  readonly reports: readonly AcceptReport[];
}

/**
 * Looks whether rules of others drop what the pod network needs, where no rule of ours can help: in nftables a packet that
 * one table drops is dropped, whatever others accept. Only what is sure is told: a rule that depends on something else
 * than addresses, ports and devices is not.
 *
 * @returns Sentences for people, each with what to do.
 * @throws `AbortError`.
 */
export async function findObstacles(
  looks: readonly FamilyLook[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const isIptables = (family: string): boolean =>
    looks.some(
      ({ needs, reports }) =>
        (family === "ip") === (needs.family === "IPv4") &&
        reports.some(
          ({ listing, program }) =>
            program.variant === "nf_tables" &&
            /^:[A-Z]/m.test(listing) &&
            // It says so of a table in which it does not see everything.
            !/^# Table `filter' .*incompatible/m.test(listing),
        ),
    );
  const foreign = await readForeign(isIptables, signal);
  const sentences: string[] = [];
  for (const { needs, reports } of looks) {
    const obstacles = [
      ...(await nftObstacles(foreign, needs, signal)),
      ...iptablesObstacles(reports, needs),
    ];
    sentences.push(...obstacles.map((obstacle) => describeObstacle(obstacle, needs)));
  }
  return [...new Set(sentences)];
}
