import { SERVICES } from "../../../api/resources.ts";
import { listObjects } from "../../../api/objects.ts";
import { type Cidr, cidrAddress, cidrSize } from "../../../lib/cidr.ts";
import { RemoraError } from "../../../lib/errors.ts";
import { defaultTableName as networkTable } from "../../../network/rules.ts";
import { defaultTableName as proxyTable } from "../../../proxy/make-family-rules.ts";
import { readHost, readKernelRules } from "../../../proxy/trace/read-kernel.ts";
import { reportWays } from "../../../proxy/trace/report.ts";
import { walk } from "../../../proxy/trace/walk.ts";
import { defineCheck, type Finding, judged, type Judgement, skipped, unknown } from "../check.ts";
import { asIdentity } from "../identity.ts";
import type { Machine } from "../machine.ts";
import { lookAtNetwork, type NetworkLook } from "../network-look.ts";
import {
  firstAddress,
  type PathTarget,
  type PodPlace,
  reach,
  type ThrowAwayPod,
  withListener,
  withThrowAwayPod,
} from "../throw-away-pod.ts";
import { serversBehind } from "./names.ts";

type PathProblem =
  | "path-node-service"
  | "path-pod-pod"
  | "path-pod-service"
  | "path-pod-dns"
  | "path-pod-outside";

/** One packet that was sent. */
export interface PathResult {
  readonly problem: PathProblem;
  readonly to: string;
  /** Empty: it arrived. */
  readonly said: string;
  /** What the rules do with it, where it did not arrive. */
  readonly rules: string;
}

type PathFacts =
  | { readonly kind: "tried"; readonly results: readonly PathResult[] }
  | { readonly kind: "skipped" | "unknown"; readonly why: string };

interface Wanted {
  readonly problem: PathProblem;
  readonly target: PathTarget;
}

const listenPort = 18_080;

async function kubernetesService(
  machine: Machine,
  signal: AbortSignal,
): Promise<ReturnType<typeof firstAddress>> {
  const identity = machine.site.identities.find(({ name }) => name === "proxy");
  if (identity === undefined) return undefined;
  return asIdentity(machine, identity, async (client) => {
    const { items } = await listObjects(client, SERVICES, {
      namespace: "default",
      fieldSelector: "metadata.name=kubernetes",
      signal,
    });
    return firstAddress(items[0]);
  });
}

/** A server outside that the machine itself can ask. */
async function outsideServer(
  machine: Machine,
  signal: AbortSignal,
): Promise<PathTarget | undefined> {
  const { dns } = machine.site;
  const text = (await machine.read(dns?.resolvConf || "/etc/resolv.conf")) ?? "";
  const behind = await machine.read("/run/systemd/resolve/resolv.conf");
  const targets = serversBehind(text, behind)
    .filter(
      (one) => !one.startsWith("127.") && one !== "::1" && dns?.addresses.includes(one) !== true,
    )
    .map((address): PathTarget => ({ protocol: "dns", address, port: 53 }));
  const said = await reach(machine, [], targets, signal);
  return targets.find((_, index) => said[index] === "");
}

/** The last free addresses of the node's pod network: those that are handed out last. */
async function freeAddresses(machine: Machine, cidr: Cidr): Promise<readonly string[]> {
  const leased = new Set(await machine.names(`${machine.site.rootDir}/network/ipam`));
  const size = cidrSize(cidr);
  const found: string[] = [];
  for (let offset = size - 2n; offset > 1n && found.length < 2; offset -= 1n) {
    const ip = cidrAddress(cidr, offset);
    if (!leased.has(ip)) found.push(ip);
  }
  return found;
}

async function whatRulesSay(
  source: string,
  device: string,
  { address, port, protocol }: PathTarget,
  signal: AbortSignal,
): Promise<string> {
  try {
    const host = await readHost("IPv4", signal);
    const { rules, ...read } = await readKernelRules("IPv4", [proxyTable, networkTable], signal);
    const packet = {
      family: "IPv4",
      protocol: protocol === "tcp" ? "tcp" : "udp",
      source,
      sourcePort: 40_000,
      destination: address,
      destinationPort: port,
      inInterface: device,
    } as const;
    const report = reportWays(walk(rules, packet, host), packet, { ...read, from: source });
    return report.outcome === "delivered" ? "" : (report.ends[0]?.text ?? "");
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof RemoraError) return "";
    throw error;
  }
}

function hostPort({ address, port }: PathTarget): string {
  return `${address}:${port}`;
}

async function tryPaths(
  machine: Machine,
  from: Pick<ThrowAwayPod, "ip" | "inside"> | undefined,
  wanted: readonly Wanted[],
  signal: AbortSignal,
): Promise<readonly PathResult[]> {
  const targets = wanted.map(({ target }) => target);
  const said = await reach(machine, from?.inside ?? [], targets, signal);
  const results: PathResult[] = [];
  for (const [index, { problem, target }] of wanted.entries()) {
    const text = said[index] ?? "";
    const device = from === undefined ? "" : machine.site.bridge;
    const rules =
      text === "" || from === undefined ? "" : await whatRulesSay(from.ip, device, target, signal);
    results.push({ problem, to: hostPort(target), said: text, rules });
  }
  return results;
}

/** What pods are to reach, as far as it is there. */
async function podTargets(
  machine: Machine,
  service: ReturnType<typeof firstAddress>,
  signal: AbortSignal,
): Promise<readonly Wanted[]> {
  const outside = await outsideServer(machine, signal);
  const names = (machine.site.dns?.addresses ?? []).filter((ip) => !ip.includes(":"));
  return [
    ...(service === undefined
      ? []
      : [
          {
            problem: "path-pod-service" as const,
            target: { protocol: "tcp" as const, address: service.ip, port: service.port },
          },
        ]),
    ...names.map((address) => ({
      problem: "path-pod-dns" as const,
      target: {
        protocol: "dns" as const,
        address,
        port: 53,
        // What others have to be asked for says nothing about this path.
        name: `kubernetes.default.svc.${machine.site.dns?.domain ?? "cluster.local"}`,
      },
    })),
    ...(outside === undefined ? [] : [{ problem: "path-pod-outside" as const, target: outside }]),
  ];
}

function placesIn(
  { bridge }: NetworkLook,
  cidr: Cidr,
  ips: readonly string[],
): readonly PodPlace[] {
  if (bridge === undefined) return [];
  return ips.map((ip, index) => ({
    device: `rmdoctor${index}`,
    ip,
    bridge: bridge.name,
    gateway: cidrAddress(cidr, 1),
    mtu: bridge.mtu,
  }));
}

async function collect(machine: Machine, signal: AbortSignal): Promise<PathFacts> {
  const { pid } = machine.site;
  if (pid === undefined) return { kind: "skipped", why: "no agent runs" };
  if (!machine.isRoot)
    return { kind: "unknown", why: "packets of pods are sent by root only: use sudo" };
  const look = await lookAtNetwork(machine, signal);
  // The check of the API server says why it does not answer; everything else can be tried.
  const service = await kubernetesService(machine, signal).catch(() => undefined);
  signal.throwIfAborted();
  const results: PathResult[] = [];
  if (service !== undefined) {
    const target = { protocol: "tcp", address: service.ip, port: service.port } as const;
    results.push(
      ...(await tryPaths(machine, undefined, [{ problem: "path-node-service", target }], signal)),
    );
  }
  const cidr = look.podCIDRs.find(({ family }) => family === "IPv4");
  if (look.plugIns || cidr === undefined) {
    return results.length > 0
      ? { kind: "tried", results }
      : { kind: "skipped", why: "pods are not on a bridge of the agent" };
  }
  const [first, second] = placesIn(look, cidr, await freeAddresses(machine, cidr));
  if (first === undefined || second === undefined) {
    return { kind: "unknown", why: "no address of the pod network is free" };
  }
  const wanted = await podTargets(machine, service, signal);
  const { clock } = machine;
  const ofPods = await withThrowAwayPod(
    first,
    clock,
    (from) =>
      withThrowAwayPod(
        second,
        clock,
        (to) => {
          const target = { protocol: "tcp", address: to.ip, port: listenPort } as const;
          const all = [{ problem: "path-pod-pod" as const, target }, ...wanted];
          return withListener(
            to.inside,
            listenPort,
            () => tryPaths(machine, from, all, signal),
            signal,
          );
        },
        signal,
      ),
    signal,
  );
  return { kind: "tried", results: [...results, ...ofPods] };
}

const ways: Readonly<Record<PathProblem, string>> = {
  "path-node-service": "node to Service",
  "path-pod-pod": "pod to pod",
  "path-pod-service": "pod to Service",
  "path-pod-dns": "pod to cluster DNS",
  "path-pod-outside": "pod to outside",
};

function judge(facts: PathFacts): Judgement<PathProblem> {
  if (facts.kind !== "tried") {
    return facts.kind === "skipped" ? skipped(facts.why) : unknown(facts.why);
  }
  const lost = facts.results.filter(({ said }) => said !== "");
  return judged(
    facts.results.map(({ problem }) => ways[problem]).join(", "),
    lost.map(({ problem, rules, said, to }): Finding<PathProblem> => {
      const why = rules === "" ? "" : `; the agent's rules: ${rules}`;
      return { problem, text: `${ways[problem]} ${to}: ${said}${why}` };
    }),
  );
}

const look = "remora doctor --only firewalls,settings,rules,pod-network";

export const paths = defineCheck<PathProblem, PathFacts>({
  id: "paths",
  title: "Packets on each path",
  group: "network",
  looks:
    "real connections from the node and from a throw-away pod: to a pod, a Service, cluster DNS and outside",
  reference: "docs/networking.md",
  deadlineMs: 30_000,
  problems: {
    "path-node-service": {
      level: "error",
      means: "The node does not reach a Service.",
      cause:
        "Rules of the Service proxy are missing or shadowed, its endpoint does not answer, or a firewall drops the packets.",
      remedy: "remora service default/kubernetes; remora trace --from node --to 10.96.0.1:443",
    },
    "path-pod-pod": {
      level: "error",
      means: "A pod does not reach another pod of this node.",
      cause:
        "A firewall drops what is forwarded over the bridge, or br_netfilter sends it through rules of others.",
      remedy: look,
    },
    "path-pod-service": {
      level: "error",
      means: "A pod does not reach a Service.",
      cause:
        "Rules are missing or shadowed, or a firewall drops the way to the endpoint: with `remora up` that is port 6443 of the node from the bridge.",
      remedy: "remora service default/kubernetes; remora doctor --only firewalls,rules",
    },
    "path-pod-dns": {
      level: "error",
      means: "A pod gets no answer from the cluster's DNS.",
      cause: "A firewall drops port 53 from the bridge, or the name server does not answer.",
      remedy: "remora doctor --only cluster-dns,firewalls",
    },
    "path-pod-outside": {
      level: "error",
      means: "A pod does not reach outside, and the node does.",
      cause:
        "Forwarding is off, pods' packets are not masqueraded, or a firewall drops what is forwarded.",
      remedy: look,
    },
  },
  collect,
  judge,
});
