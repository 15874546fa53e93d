import { hostname } from "node:os";

import { isNotFound } from "../../api/errors.ts";
import { createHttpClient } from "../../api/http-client.ts";
import { loadKubeconfig } from "../../api/kubeconfig.ts";
import { getObject } from "../../api/objects.ts";
import { PODS } from "../../api/resources.ts";
import { canonicalIP, type IPFamily, ipFamily } from "../../lib/cidr.ts";
import { deadline, systemClock } from "../../lib/clock.ts";
import { RemoraError, SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { defaultTableName as networkTable } from "../../network/rules.ts";
import { defaultTableName as proxyTable } from "../../proxy/make-family-rules.ts";
import type { Packet } from "../../proxy/trace/flow.ts";
import type { Host } from "../../proxy/trace/host.ts";
import { readHost, readKernelRules, sourceTowards } from "../../proxy/trace/read-kernel.ts";
import {
  type Outcome,
  reportLines,
  reportWays,
  type TraceReport,
} from "../../proxy/trace/report.ts";
import { walk } from "../../proxy/trace/walk.ts";
import type { TraceFlags } from "../flags.ts";
import { findKubeconfig } from "../service/cluster.ts";
import { remoraVersion } from "../version.ts";

const lookMs = 60_000;
const ownTables = [proxyTable, networkTable];
/** What clients have by chance; no rule of ours asks for it. */
const sourcePort = 40_000;

const exitCodes: Readonly<Record<Outcome, number>> = {
  delivered: 0,
  "not delivered": 1,
  "cannot tell": 2,
};

/** What `--to` says. */
export interface TraceTarget {
  readonly ip: string;
  readonly port: number;
  readonly protocol: Packet["protocol"];
}

/**
 * Reads `10.96.0.10:53/udp` or `[fd00::a]:80`; TCP unless it says something else.
 *
 * @throws {SetupError}
 */
export function parseTarget(text: string): TraceTarget {
  const [, v6, v4, port = "", protocol = "tcp"] =
    /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})(?:\/(tcp|udp|sctp))?$/i.exec(text) ?? [];
  const ip = v6 ?? v4 ?? "";
  const number = Number(port);
  const known = (["tcp", "udp", "sctp"] as const).find((one) => one === protocol.toLowerCase());
  if (
    ipFamily(ip) !== (v6 === undefined ? "IPv4" : "IPv6") ||
    known === undefined ||
    number < 1 ||
    number > 65_535
  ) {
    throw new SetupError(
      `--to ${text}: must be an address and a port, such as 10.96.0.10:53/udp or [fd00::a]:80`,
    );
  }
  return { ip: canonicalIP(ip), port: number, protocol: known };
}

interface Context {
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

interface Origin {
  /** For people. */
  readonly text: string;
  readonly source: string;
  /** It is the node that sends. */
  readonly fromNode: boolean;
}

/** What the API says of a pod, as far as packets from it go. */
async function podOrigin(
  name: string,
  family: IPFamily,
  flags: TraceFlags,
  context: Context,
): Promise<Origin> {
  const { logger, signal } = context;
  const kubeconfig = await loadKubeconfig(await findKubeconfig(flags, "", process.env));
  const parts = name.split("/");
  const [namespace = "default", pod = ""] =
    parts.length === 2 ? parts : [flags.namespace ?? kubeconfig.namespace, name];
  const client = createHttpClient({
    kubeconfig,
    userAgent: `remora/${remoraVersion}`,
    clock: systemClock,
    logger,
  });
  try {
    const { spec, status } = await getObject(client, PODS, { namespace, name: pod }, { signal });
    const ips = status?.podIPs?.map(({ ip }) => ip) ?? [status?.podIP ?? ""];
    const source = ips.find((ip) => ipFamily(ip) === family);
    if (source === undefined) {
      throw new SetupError(
        `pod ${namespace}/${pod} has no ${family} address (phase ${status?.phase ?? "unknown"})`,
      );
    }
    const elsewhere = spec?.nodeName !== undefined && spec.nodeName !== hostname().toLowerCase();
    return {
      text: `pod ${namespace}/${pod} (${source}${elsewhere ? `, on node ${spec.nodeName}` : ""})`,
      source: canonicalIP(source),
      fromNode: false,
    };
  } catch (error) {
    if (!isNotFound(error)) throw error;
    throw new SetupError(`there is no pod ${namespace}/${pod}`, { cause: error });
  } finally {
    await client.close();
  }
}

async function originOf(
  target: TraceTarget,
  family: IPFamily,
  flags: TraceFlags,
  context: Context,
): Promise<Origin> {
  const { from } = flags;
  if (from === "node") {
    const source = await sourceTowards(target.ip, context.signal);
    if (source === undefined) {
      throw new SetupError(
        `this node has no way to ${target.ip}, so it sends nothing: rules are not asked (ip route get ${target.ip})`,
      );
    }
    return { text: `this node (${source})`, source: canonicalIP(source), fromNode: true };
  }
  const given = ipFamily(from);
  if (given === undefined) return podOrigin(from, family, flags, context);
  if (given !== family) {
    throw new SetupError(`--from ${from} and --to ${target.ip} are not of one IP family`);
  }
  return { text: from, source: canonicalIP(from), fromNode: false };
}

function packetOf(origin: Origin, target: TraceTarget, family: IPFamily, host: Host): Packet {
  const own = origin.fromNode || host.isLocal(origin.source);
  const device = own ? "" : host.deviceTo(origin.source);
  if (device === undefined) {
    throw new SetupError(
      `this node has no way to ${origin.source}, so nothing comes from there (ip route get ${origin.source})`,
    );
  }
  return {
    family,
    protocol: target.protocol,
    source: origin.source,
    sourcePort,
    destination: target.ip,
    destinationPort: target.port,
    inInterface: device,
  };
}

/**
 * `remora trace`: sends a packet through the rules that the kernel has, without sending one, and says where it ends.
 *
 * @returns The exit code: 0 delivered, 1 not, 2 nobody can tell, also because of the flags or the machine.
 * @throws `AbortError`, and what is a bug.
 */
export async function trace(
  flags: TraceFlags,
  logger: Logger,
  signal: AbortSignal,
): Promise<number> {
  try {
    const report = await look(flags, { logger, signal: deadline(signal, lookMs) });
    const text =
      flags.output === "json"
        ? JSON.stringify(report, undefined, 2)
        : reportLines(report).join("\n");
    process.stdout.write(`${text}\n`);
    return exitCodes[report.outcome];
  } catch (error) {
    if (!(error instanceof RemoraError)) throw error;
    process.stderr.write(`remora: ${error.message}\n`);
    if (flags.output === "json") {
      const said = { outcome: "cannot tell", code: error.code, message: error.message };
      process.stdout.write(`${JSON.stringify(said, undefined, 2)}\n`);
    }
    return exitCodes["cannot tell"];
  }
}

async function look(flags: TraceFlags, context: Context): Promise<TraceReport> {
  const { signal } = context;
  const target = parseTarget(flags.to);
  if (process.getuid?.() !== 0) {
    throw new SetupError("packet rules may only be read by root: run this with sudo");
  }
  const family = ipFamily(target.ip) ?? "IPv4";
  const origin = await originOf(target, family, flags, context);
  const host = await readHost(family, signal);
  const packet = packetOf(origin, target, family, host);
  const { rules, ...kernel } = await readKernelRules(family, ownTables, signal);
  return reportWays(walk(rules, packet, host), packet, { ...kernel, from: origin.text });
}
