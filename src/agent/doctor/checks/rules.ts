import { SERVICES } from "../../../api/resources.ts";
import { listObjects } from "../../../api/objects.ts";
import { errorMessage, SetupError } from "../../../lib/errors.ts";
import { listTable } from "../../../netfilter/nft.ts";
import { defaultTableName as networkTable } from "../../../network/rules.ts";
import { explainService } from "../../../proxy/explain/explain.ts";
import type { AgentFacts, Viewpoint } from "../../../proxy/explain/model.ts";
import type { HttpClient } from "../../../api/http-client.ts";
import { readNode, readServedServices, readSlices } from "../../service/cluster.ts";
import { readKernel } from "../../service/kernel.ts";
import { defineCheck, type Finding, judged, type Judgement, skipped, unknown } from "../check.ts";
import { asIdentity } from "../identity.ts";
import type { Machine } from "../machine.ts";

/** Services that are compared: the whole table is read for each. */
const mostServices = 5;
/** A change that is on its way is in the kernel by then. */
const settleMs = 1500;

interface Drift {
  readonly service: string;
  /** What the kernel has otherwise, for people. */
  readonly differences: readonly string[];
}

type RulesFacts =
  | {
      readonly kind: "compared";
      readonly mode: string;
      readonly services: number;
      readonly compared: number;
      readonly drifts: readonly Drift[];
      readonly tablesMissing: readonly string[];
    }
  | { readonly kind: "skipped" | "unknown"; readonly why: string };

interface Comparing {
  readonly client: HttpClient;
  readonly facts: AgentFacts;
  readonly node: Viewpoint;
}

async function driftsOf(
  { client, facts, node }: Comparing,
  signal: AbortSignal,
): Promise<{
  readonly services: number;
  readonly compared: number;
  readonly drifts: readonly Drift[];
}> {
  const { items } = await listObjects(client, SERVICES, { signal });
  const others = (await readServedServices(client, signal)).services;
  // Those with addresses, the cluster's own first.
  const chosen = items
    .filter(
      ({ spec }) =>
        spec?.clusterIP !== undefined && spec.clusterIP !== "None" && spec.clusterIP !== "",
    )
    .toSorted(
      (a, b) => Number(b.metadata.name === "kubernetes") - Number(a.metadata.name === "kubernetes"),
    )
    .slice(0, mostServices);
  const drifts: Drift[] = [];
  for (const service of chosen) {
    const { name, namespace = "default" } = service.metadata;
    const slices = await readSlices(client, namespace, name ?? "", signal);
    const explanation = explainService({
      service,
      slices,
      others,
      node,
      families: facts.families.map(({ family }) => family),
      externalIPs: facts.externalIPs,
    });
    if (explanation.notServed !== undefined) continue;
    const { missing, views } = await readKernel(
      { facts, node, service, slices, others, explanation },
      signal,
    );
    if (missing !== undefined) throw new SetupError(missing);
    const differences = Object.values(views).flatMap(({ drift, program }) =>
      drift.map(
        ({ found, key, wanted, where }) =>
          `${program} ${where} ${key}: ${found ?? "nothing"} instead of ${wanted ?? "nothing"}`,
      ),
    );
    if (differences.length > 0) drifts.push({ service: `${namespace}/${name}`, differences });
  }
  return { services: items.length, compared: chosen.length, drifts };
}

/** Tables of the pod network that have to be there while its bridge is. */
async function missingTables(machine: Machine, signal: AbortSignal): Promise<readonly string[]> {
  const bridge = await machine.names(`/sys/class/net/${machine.site.bridge}`);
  if (bridge.length === 0 || machine.site.facts?.mode !== "nftables") return [];
  const listing = await listTable({ family: "ip", name: networkTable }, signal);
  return listing === undefined ? [`nft ip ${networkTable}`] : [];
}

async function collect(machine: Machine, signal: AbortSignal): Promise<RulesFacts> {
  const { facts, factsMissing, identities, nodeName, pid } = machine.site;
  if (pid === undefined) return { kind: "skipped", why: "no agent runs" };
  if (facts === undefined) return { kind: "unknown", why: factsMissing };
  if (!machine.isRoot)
    return { kind: "unknown", why: "packet rules may only be read by root: use sudo" };
  const identity = identities.find(({ name }) => name === "proxy");
  if (identity === undefined)
    return { kind: "unknown", why: "the proxy's credentials are not found" };
  try {
    return await asIdentity(machine, identity, async (client) => {
      const { node } = await readNode(client, nodeName, signal);
      const comparing: Comparing = {
        client,
        facts,
        node: {
          nodeName,
          nodeIPs: facts.nodeIPs,
          zone: node?.zone,
          keepsSource: facts.keepsSource === true,
        },
      };
      let found = await driftsOf(comparing, signal);
      if (found.drifts.length > 0) {
        await machine.clock.sleep(settleMs, signal);
        found = await driftsOf(comparing, signal);
      }
      const tablesMissing = await missingTables(machine, signal);
      return { kind: "compared", mode: facts.mode, ...found, tablesMissing };
    });
  } catch (error) {
    signal.throwIfAborted();
    return { kind: "unknown", why: errorMessage(error) };
  }
}

type RulesProblem = "rules-differ" | "rules-table-missing";

function judge(facts: RulesFacts): Judgement<RulesProblem> {
  if (facts.kind !== "compared") {
    return facts.kind === "skipped" ? skipped(facts.why) : unknown(facts.why);
  }
  const { compared, drifts, mode, services, tablesMissing } = facts;
  const findings: Finding<RulesProblem>[] = drifts.map(({ differences, service }) => ({
    problem: "rules-differ",
    text: `Service ${service}: ${differences.slice(0, 2).join("; ")}${differences.length > 2 ? ` and ${differences.length - 2} more` : ""}`,
    remedy: `remora service ${service} # shows all; the agent compares by itself: sleep 30 and look again`,
  }));
  for (const table of tablesMissing) {
    findings.push({ problem: "rules-table-missing", text: `there is no table ${table}` });
  }
  return judged(`${mode}, ${compared} of ${services} Services compared`, findings);
}

export const rules = defineCheck<RulesProblem, RulesFacts>({
  id: "rules",
  title: "Rules in the kernel",
  group: "network",
  looks: "whether the kernel has what the agent wrote for Services and pods",
  reference: "docs/service-proxy.md",
  deadlineMs: 30_000,
  problems: {
    "rules-differ": {
      level: "error",
      means: "The kernel has other rules for a Service than the agent would write.",
      cause:
        "Another program changed the table (nft flush ruleset, another Service proxy), or the agent has not heard of the last change.",
      remedy:
        "remora service NAMESPACE/NAME # shows all; systemctl restart remora writes what is missing",
    },
    "rules-table-missing": {
      level: "error",
      means: "A table of the agent is not in the kernel.",
      cause:
        "Somebody removed it, most often `nft flush ruleset` of /etc/nftables.conf; the agent puts it back within 30 seconds.",
      remedy:
        "sleep 30; remora doctor --only rules # and take `flush ruleset` out of /etc/nftables.conf",
    },
  },
  collect,
  judge,
});
