import { isForbidden } from "../../api/errors.ts";
import { type Clock, deadline } from "../../lib/clock.ts";
import { errorMessage, ExecError, isAbort, SetupError } from "../../lib/errors.ts";
import { execResult } from "../../lib/exec.ts";
import { applyNft } from "../../netfilter/nft.ts";
import { NftError } from "../../netfilter/errors.ts";
import { IptablesError } from "../../netfilter/iptables.ts";
import type { NftTable } from "../../netfilter/transaction.ts";
import type { RulesContext } from "../../proxy/backend.ts";
import { countingEnd, countingText, parseCounts } from "../../proxy/explain/count.ts";
import { claimsOf, indexOf, plansOf } from "../../proxy/explain/explain.ts";
import {
  type FlowCount,
  FlowTally,
  type FlowTarget,
  listTrackedFlows,
} from "../../proxy/explain/flows.ts";
import { iptablesView } from "../../proxy/explain/kernel-iptables.ts";
import { nftablesView } from "../../proxy/explain/kernel-nftables.ts";
import type { KernelView } from "../../proxy/explain/kernel.ts";
import type {
  AgentFacts,
  PortExplanation,
  ServiceExplanation,
  Viewpoint,
} from "../../proxy/explain/model.ts";
import type { RawSlice } from "../../proxy/explain/endpoints.ts";
import type { CountedTraffic } from "../../proxy/explain/text.ts";
import { parseService, type ServiceView } from "../../proxy/parse.ts";

export interface KernelOptions {
  readonly facts: AgentFacts;
  readonly node: Viewpoint;
  readonly service: unknown;
  readonly slices: readonly RawSlice[];
  readonly others: readonly ServiceView[];
  readonly explanation: ServiceExplanation;
}

/** Whether an error says that something could not be looked at; anything else is a bug. */
function isExplained(error: unknown): boolean {
  return (
    error instanceof SetupError ||
    error instanceof NftError ||
    error instanceof IptablesError ||
    error instanceof ExecError ||
    isForbidden(error)
  );
}

/** The kernel's rules for a Service, by family, or why they cannot be shown. */
export async function readKernel(
  options: KernelOptions,
  signal: AbortSignal,
): Promise<{ readonly views: Record<string, KernelView>; readonly missing: string | undefined }> {
  const views: Record<string, KernelView> = {};
  try {
    for (const context of options.facts.families) {
      if (!options.explanation.ports.some(({ family }) => family === context.family)) continue;
      views[context.family] = await viewOf(options, context, signal);
    }
    return { views, missing: undefined };
  } catch (error) {
    if (!isExplained(error)) throw error;
    return { views, missing: errorMessage(error) };
  }
}

async function viewOf(
  options: KernelOptions,
  context: RulesContext,
  signal: AbortSignal,
): Promise<KernelView> {
  const { facts, node, service, slices } = options;
  const { externalIPs, mode, table } = facts;
  const { family } = context;
  const input = { ...options, externalIPs };
  const planned = plansOf(parseService(service), family, indexOf(slices, node), input);
  const claims = claimsOf(input, family, planned);
  const wanted = { context, plans: planned.map(({ plan }) => plan), claims };
  return mode === "nftables"
    ? nftablesView({ ...wanted, table }, signal)
    : iptablesView(wanted, signal);
}

/** Addresses and ports that flows of a Service have: for node ports, those of the node. */
export function targetsOf(
  { ports }: ServiceExplanation,
  facts: Pick<AgentFacts, "nodeIPs" | "families">,
): readonly (FlowTarget & Pick<PortExplanation, "family">)[] {
  const targets = ports.flatMap(({ addresses, family, protocol }) => {
    const ofNode =
      facts.families.find((context) => context.family === family)?.nodePortIPs ??
      facts.nodeIPs.filter((ip) => ip.includes(":") === (family === "IPv6"));
    return addresses.flatMap(({ ip, port }) =>
      (ip === "" ? ofNode : [ip]).map((one) => ({ ip: one, port, protocol, family })),
    );
  });
  return [...new Map(targets.map((one) => [JSON.stringify(one), one])).values()];
}

/** Flows of a Service that the kernel knows now, or why they cannot be listed. */
export async function readFlows(
  targets: readonly (FlowTarget & Pick<PortExplanation, "family">)[],
  signal: AbortSignal,
): Promise<{ readonly flows: readonly FlowCount[] } | { readonly missing: string }> {
  const tally = new FlowTally(targets);
  try {
    for (const family of new Set(targets.map((target) => target.family))) {
      await listTrackedFlows(family, (flow) => tally.add(flow), signal);
    }
    return { flows: tally.counts() };
  } catch (error) {
    if (!(error instanceof ExecError)) throw error;
    return { missing: flowsReason(error) };
  }
}

function flowsReason(error: ExecError): string {
  if (error.exitCode === 127) {
    return "conntrack is not installed: run `apt-get install conntrack`";
  }
  // It does not always say why.
  return process.getuid?.() !== 0
    ? "conntrack may not be asked: run remora as root"
    : errorMessage(error);
}

/**
 * Counts packets of a Service for some seconds, by a table of its own that is removed again, whatever happens in between.
 *
 * @throws {SetupError} not root, no nft; {@link NftError}; `AbortError`.
 */
export async function countPackets(
  options: {
    readonly targets: readonly (FlowTarget & Pick<PortExplanation, "family">)[];
    readonly seconds: number;
    /** Of this process: makes the table's name unique, and tells later who left it behind. */
    readonly pid: number;
    readonly isAlive: (pid: number) => boolean;
    readonly clock: Clock;
  },
  signal: AbortSignal,
): Promise<CountedTraffic> {
  const { targets, seconds, pid, clock } = options;
  await removeAbandoned(options.isAlive, signal);
  const families = [...new Set(targets.map(({ family }) => family))];
  const table = (family: string): NftTable => ({
    family: family === "IPv4" ? "ip" : "ip6",
    name: `${countingPrefix}${pid}`,
  });
  const made: NftTable[] = [];
  try {
    for (const family of families) {
      const own = targets.filter((target) => target.family === family);
      await applyNft(countingText(table(family), family, own), signal);
      made.push(table(family));
    }
    // Who is tired of waiting sees what was counted until then.
    await clock.sleep(seconds * 1000, signal).catch((error: unknown) => {
      if (!isAbort(error)) throw error;
    });
    const ending = deadline(new AbortController().signal, 10_000);
    const found = await Promise.all(made.map((one) => listCounts(one, ending)));
    return {
      seconds,
      arrived: found.flatMap(({ arrived }) => arrived),
      counts: found.flatMap(({ counts }) => counts),
    };
  } finally {
    const ending = deadline(new AbortController().signal, 10_000);
    for (const one of made) await applyNft(countingEnd(one), ending);
  }
}

const countingPrefix = "remora-count-";

/** Tables of commands that were killed while they counted. */
async function removeAbandoned(
  isAlive: (pid: number) => boolean,
  signal: AbortSignal,
): Promise<void> {
  const { stdout } = await execResult(["nft", "list", "tables"], { signal });
  for (const line of stdout.split("\n")) {
    const [, family, pid = ""] =
      new RegExp(`^table (ip6?) ${countingPrefix}(\\d+)$`).exec(line) ?? [];
    if (family !== "ip" && family !== "ip6") continue;
    if (isAlive(Number(pid))) continue;
    await applyNft(countingEnd({ family, name: `${countingPrefix}${pid}` }), signal);
  }
}

async function listCounts(
  table: NftTable,
  signal: AbortSignal,
): Promise<ReturnType<typeof parseCounts>> {
  const argv = ["nft", "-j", "list", "table", table.family, table.name] as const;
  const { exitCode, stdout, stderr } = await execResult(argv, { signal });
  if (exitCode !== 0) throw new ExecError(argv, exitCode, stderr);
  return parseCounts(JSON.parse(stdout));
}
