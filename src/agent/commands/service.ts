import { existsSync } from "node:fs";
import { hostname } from "node:os";

import type { ApiClient } from "../../api/client.ts";
import { createHttpClient } from "../../api/http-client.ts";
import { loadKubeconfig } from "../../api/kubeconfig.ts";
import { deadline, systemClock } from "../../lib/clock.ts";
import { SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { explainService } from "../../proxy/explain/explain.ts";
import type { ServiceExplanation, Viewpoint } from "../../proxy/explain/model.ts";
import { hasDrift, reportLines, type ServiceReport } from "../../proxy/explain/text.ts";
import type { ServiceFlags } from "../flags.ts";
import { askAgent } from "../service/agent-facts.ts";
import {
  findKubeconfig,
  readNode,
  readServedServices,
  readService,
  readSlices,
} from "../service/cluster.ts";
import {
  countPackets,
  type KernelOptions,
  readFlows,
  readKernel,
  targetsOf,
} from "../service/kernel.ts";
import { remoraVersion } from "../version.ts";

const lookMs = 60_000;
const longestCount = 3600;

/** What the exit code of `remora service` means; 1 is an error. */
const exitCodes = { right: 0, drift: 2, notServed: 3 } as const;

/**
 * `remora service NAME`: its addresses, its endpoints and why each is in or out, and what the kernel has of it.
 *
 * @returns The exit code: 0 as it should be, as far as it could be looked at; 2 the kernel's rules are other ones; 3 the
 *   proxy has nothing to do with it.
 * @throws {SetupError} no such Service, no credentials.
 */
export async function explain(
  name: string,
  flags: ServiceFlags,
  logger: Logger,
  signal: AbortSignal,
): Promise<number> {
  const seconds = countSeconds(flags.count);
  const asked = await agentOf(flags, signal);
  const path = await findKubeconfig(flags, asked.facts?.kubeconfig ?? "", process.env);
  const kubeconfig = await loadKubeconfig(path);
  const client = createHttpClient({
    kubeconfig,
    userAgent: `remora/${remoraVersion}`,
    clock: systemClock,
    logger,
  });
  const [namespace, service] = nameOf(name, flags.namespace ?? kubeconfig.namespace);
  try {
    const report = await look({ client, namespace, service, flags, seconds, asked }, signal);
    const text =
      flags.output === "json"
        ? JSON.stringify(report, undefined, 2)
        : reportLines(report).join("\n");
    process.stdout.write(`${text}\n`);
    if (report.explanation.notServed !== undefined) return exitCodes.notServed;
    return hasDrift(report) ? exitCodes.drift : exitCodes.right;
  } finally {
    await client.close();
  }
}

function countSeconds(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const seconds = Number(text);
  if (Number.isInteger(seconds) && seconds > 0 && seconds <= longestCount) return seconds;
  throw new SetupError(`--count ${text}: must be whole seconds, 1 to ${longestCount}`);
}

/** `NAME` or `NAMESPACE/NAME`. */
function nameOf(text: string, namespace: string): readonly [string, string] {
  const [first = "", second] = text.split("/");
  return second === undefined ? [namespace, first] : [first, second];
}

type Asked = Awaited<ReturnType<typeof askAgent>>;

async function agentOf(flags: ServiceFlags, signal: AbortSignal): Promise<Asked> {
  const asked = await askAgent(flags.agent, signal);
  if (flags.node === undefined || asked.facts?.nodeName === flags.node) return asked;
  return { facts: undefined, why: `this is not node ${flags.node}` };
}

interface Looking {
  readonly client: ApiClient;
  readonly namespace: string;
  readonly service: string;
  readonly flags: ServiceFlags;
  readonly seconds: number | undefined;
  readonly asked: Asked;
}

/** What was read of the cluster, and what follows from it. */
interface Seen extends Pick<KernelOptions, "node" | "service" | "slices" | "others"> {
  readonly explanation: ServiceExplanation;
  /** The cluster has the agent's Node, so it is the agent's cluster. */
  readonly isOwnCluster: boolean;
}

async function lookAtCluster(looking: Looking, signal: AbortSignal): Promise<Seen> {
  const { asked, client, flags, namespace } = looking;
  const { facts } = asked;
  const nodeName = facts?.nodeName ?? flags.node ?? hostname().toLowerCase();
  const service = await readService(client, namespace, looking.service, signal);
  const [slices, others, { node, missing }] = await Promise.all([
    readSlices(client, namespace, looking.service, signal),
    readServedServices(client, signal),
    readNode(client, nodeName, signal),
  ]);
  const viewpoint: Viewpoint = {
    nodeName,
    nodeIPs: facts?.nodeIPs ?? node?.ips ?? [],
    zone: node?.zone,
    keepsSource: facts?.keepsSource === true,
  };
  const explanation = explainService({
    service,
    slices,
    others: others.services,
    node: viewpoint,
    families: facts?.families.map(({ family }) => family) ?? ["IPv4", "IPv6"],
    externalIPs: facts?.externalIPs ?? true,
  });
  const remarks = [
    ...explanation.remarks,
    ...(missing === undefined ? [] : [`zone hints are not judged: ${missing}`]),
    ...(others.missing === undefined
      ? []
      : [`who else claims its addresses is not known: ${others.missing}`]),
  ];
  return {
    node: viewpoint,
    service,
    slices,
    others: others.services,
    explanation: { ...explanation, remarks },
    isOwnCluster: node !== undefined,
  };
}

async function look(looking: Looking, signal: AbortSignal): Promise<ServiceReport> {
  const limited = deadline(signal, lookMs);
  const { asked, seconds } = looking;
  const seen = await lookAtCluster(looking, limited);
  const { explanation, node } = seen;
  const { facts } = asked;
  const base = {
    explanation,
    mode: facts?.mode,
    kernel: {},
    flows: undefined,
    flowsMissing: undefined,
    counted: undefined,
  };
  if (explanation.notServed !== undefined) {
    return { ...base, mode: undefined, kernelMissing: undefined };
  }
  if (facts === undefined) return { ...base, kernelMissing: asked.why };
  if (!seen.isOwnCluster) return { ...base, kernelMissing: otherCluster(node.nodeName) };
  const kernel = await readKernel({ facts, ...seen }, limited);
  const targets = targetsOf(explanation, facts);
  const flows = await readFlows(targets, limited);
  const counting = {
    targets,
    seconds: seconds ?? 0,
    pid: process.pid,
    isAlive,
    clock: systemClock,
  };
  return {
    ...base,
    kernel: kernel.views,
    kernelMissing: kernel.missing,
    ...("flows" in flows ? { flows: flows.flows } : { flowsMissing: flows.missing }),
    // Who may not read rules may not add any, and has been told why.
    counted:
      seconds === undefined || kernel.missing !== undefined
        ? undefined
        : await countPackets(counting, signal),
  };
}

function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`);
}

function otherCluster(nodeName: string): string {
  return `the kubeconfig is for a cluster that has no Node ${nodeName}, or does not show it: give one of the agent's cluster with --kubeconfig`;
}
