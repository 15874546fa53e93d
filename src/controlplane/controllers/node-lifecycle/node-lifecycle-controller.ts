import { objectKey } from "../../../api/object.ts";
import { NODES, PODS } from "../../../api/resources.ts";
import { jitteredBackoffMs } from "../../../lib/backoff.ts";
import { errorMessage } from "../../../lib/errors.ts";
import { getObject, patchObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runPeriodically, runQueueLoop } from "../shared/controller.ts";
import { formatTime, isPodTerminal, podCondition } from "../shared/pod-state.ts";
import type { Heartbeat, ReadyState, StoredNode, ZoneState } from "./health.ts";
import { assessNode, evictionIntervalMs, readyState, zoneState } from "./health.ts";
import type { NoExecuteWish } from "./taints.ts";
import { noExecuteWish, planTaints } from "./taints.ts";

/** Milliseconds between two looks at all nodes (--node-monitor-period). */
const monitorPeriodMs = 5_000;

/** Several nodes at once lost or found are looked at in parallel. */
const parallelNodes = 8;

function zoneOf(node: StoredNode): string {
  const labels = node.metadata.labels ?? {};
  return `${labels["topology.kubernetes.io/region"] ?? ""}/${labels["topology.kubernetes.io/zone"] ?? ""}`;
}

/** Notices nodes that fell silent: Unknown conditions, taints, pods marked not ready. */
export function nodeLifecycleController(context: ControllerContext): Controller {
  const { informers, client, clock, logger, recorder } = context;
  const heartbeats = new Map<string, Heartbeat>();
  const nextEviction = new Map<string, number>();
  /** Nodes whose pods still have to be marked not ready. */
  const unmarked = new Set<string>();
  const known = new Set<string>();

  async function patchTaints(
    node: StoredNode,
    wish: NoExecuteWish,
    signal: AbortSignal,
  ): Promise<void> {
    const taints = planTaints(node, wish, clock.now());
    if (taints === undefined) return;
    const { name, resourceVersion } = node.metadata;
    await patchObject(
      client,
      { resource: NODES, name },
      // The list is replaced as a whole, so nobody may have changed it in between.
      { metadata: { resourceVersion }, spec: { taints: taints.length === 0 ? null : taints } },
      signal,
      "application/merge-patch+json",
    );
  }

  async function checkHealth(node: StoredNode, signal: AbortSignal): Promise<ReadyState> {
    const { name } = node.metadata;
    const lease = informers.nodeLeases.get(objectKey("kube-node-lease", name));
    const time = { now: clock.now(), monotonic: clock.monotonic() };
    const result = assessNode(node, lease, heartbeats.get(name), time);
    heartbeats.set(name, result.heartbeat);
    if (result.conditions !== undefined) {
      await patchObject(
        client,
        { resource: NODES, name, subresource: "status" },
        { status: { conditions: result.conditions } },
        signal,
      );
    }
    if (result.wasReady === "True" && result.ready !== "True")
      recorder.event(
        eventTarget(NODES, node),
        "Normal",
        "NodeNotReady",
        `Node ${name} status is now: NodeNotReady`,
      );
    return result.ready;
  }

  /** Endpoints leave with this: nobody else can tell that the node's pods no longer answer. */
  async function markPodsNotReady(nodeName: string, signal: AbortSignal): Promise<void> {
    for (const pod of informers.pods.values()) {
      if (pod.spec?.nodeName !== nodeName || isPodTerminal(pod)) continue;
      const ready = podCondition(pod, "Ready");
      if (ready === undefined || ready.status === "False") continue;
      const { namespace, name, uid } = pod.metadata;
      const lastTransitionTime = formatTime(clock.now());
      try {
        await patchObject(
          client,
          { resource: PODS, namespace, name, subresource: "status" },
          {
            metadata: { uid },
            status: { conditions: [{ type: "Ready", status: "False", lastTransitionTime }] },
          },
          signal,
        );
        recorder.event(eventTarget(PODS, pod), "Warning", "NodeNotReady", "Node is not ready");
      } catch (error) {
        if (await isGone(pod.metadata, signal)) continue;
        throw error;
      }
    }
  }

  async function isGone(
    at: { readonly namespace?: string | undefined; readonly name: string; readonly uid: string },
    signal: AbortSignal,
  ): Promise<boolean> {
    try {
      const live = await getObject(client, { resource: PODS, ...at }, signal);
      return live.metadata.uid !== at.uid;
    } catch {
      return true;
    }
  }

  function announce(): void {
    for (const node of informers.nodes.values()) {
      const { name } = node.metadata;
      if (known.has(name)) continue;
      known.add(name);
      recorder.event(
        eventTarget(NODES, node),
        "Normal",
        "RegisteredNode",
        `Node ${name} event: Registered Node ${name} in Controller`,
      );
    }
  }

  async function monitor(signal: AbortSignal): Promise<void> {
    announce();
    const nodes = [...informers.nodes.values()];
    const states = new Map<string, ReadyState>();
    for (let at = 0; at < nodes.length; at += parallelNodes) {
      await Promise.all(
        nodes.slice(at, at + parallelNodes).map(async (node) => {
          const { name } = node.metadata;
          try {
            const before = readyState(node);
            const ready = await checkHealth(node, signal);
            states.set(name, ready);
            if (before === "True" && ready !== "True") unmarked.add(name);
            if (ready === "True") unmarked.delete(name);
            else if (ready === "Unknown" || before !== "True") unmarked.add(name);
          } catch (error) {
            if (signal.aborted) return;
            states.set(name, readyState(node));
            logger.log("warn", "node health check failed, will retry", {
              node: name,
              error: errorMessage(error),
            });
          }
        }),
      );
    }
    for (const name of unmarked) {
      await markPodsNotReady(name, signal);
      // Marked once per loss: a node that only its kubelet lost may still report pods by itself.
      unmarked.delete(name);
    }
    await evict(nodes, states, signal);
  }

  /** Adds the NoExecute taints, slowly, and not at all while the whole cluster seems lost. */
  async function evict(
    nodes: readonly StoredNode[],
    states: ReadonlyMap<string, ReadyState>,
    signal: AbortSignal,
  ): Promise<void> {
    const zones = new Map<string, ReadyState[]>();
    for (const node of nodes) {
      const zone = zoneOf(node);
      zones.set(zone, [...(zones.get(zone) ?? []), states.get(node.metadata.name) ?? "Unknown"]);
    }
    const zoneStates = new Map<string, ZoneState>(
      [...zones].map(([zone, list]) => [zone, zoneState(list)]),
    );
    const allLost = nodes.length > 0 && [...zoneStates.values()].every((state) => state === "full");
    for (const node of nodes) {
      const cached = informers.nodes.get(node.metadata.name);
      const ready = states.get(node.metadata.name) ?? "Unknown";
      if (cached === undefined) continue;
      // The cache may still show the conditions from before; the next look has them.
      const wish = allLost
        ? "none"
        : limited(cached, noExecuteWish(ready), zoneStates, nodes.length);
      try {
        await patchTaints(cached, wish, signal);
      } catch (error) {
        if (signal.aborted) return;
        logger.log("debug", "node taints not written, will retry", {
          node: node.metadata.name,
          error: errorMessage(error),
        });
      }
    }
  }

  function limited(
    node: StoredNode,
    wish: NoExecuteWish,
    zoneStates: ReadonlyMap<string, ZoneState>,
    clusterSize: number,
  ): NoExecuteWish {
    if (wish === "none") return wish;
    const evicting = (node.spec?.taints ?? []).some(
      ({ key, effect }) =>
        effect === "NoExecute" &&
        (key === "node.kubernetes.io/not-ready" || key === "node.kubernetes.io/unreachable"),
    );
    // Swapping one taint for the other evicts nobody new.
    if (evicting) return wish;
    const zone = zoneOf(node);
    const interval = evictionIntervalMs(zoneStates.get(zone) ?? "normal", clusterSize);
    const now = clock.monotonic();
    if (interval === undefined || now < (nextEviction.get(zone) ?? 0)) return "keep";
    nextEviction.set(zone, now + interval);
    return wish;
  }

  async function syncTaints(name: string, signal: AbortSignal): Promise<void> {
    const node = informers.nodes.get(name);
    if (node === undefined) return;
    await patchTaints(node, readyState(node) === "True" ? "none" : "keep", signal);
  }

  return {
    name: "node",
    run: async (signal) => {
      const taints = runQueueLoop(
        {
          name: "node-taints",
          context,
          waitFor: [informers.nodes, informers.nodeLeases, informers.pods],
          sync: (name) => syncTaints(name, signal),
          subscribe: (queue) => [
            informers.nodes.subscribe((change) => {
              queue.add(change.key);
              if (change.kind !== "deleted") return;
              heartbeats.delete(change.key);
              unmarked.delete(change.key);
              if (!known.delete(change.key)) return;
              recorder.event(
                eventTarget(NODES, change.previous),
                "Normal",
                "RemovingNode",
                `Node ${change.key} event: Removing Node ${change.key} from Controller`,
              );
            }),
          ],
        },
        signal,
      );
      try {
        await Promise.all(
          [informers.nodes, informers.nodeLeases, informers.pods].map((each) =>
            each.whenSynced(signal),
          ),
        );
        // A little apart from other periodic work, which all starts at the same instant.
        await clock.sleep(
          jitteredBackoffMs(1, { baseMs: 100, maxMs: 100 }, context.random),
          signal,
        );
        await runPeriodically(
          { name: "node", context, periodMs: monitorPeriodMs, step: monitor },
          signal,
        );
      } catch (error) {
        if (!signal.aborted) throw error;
      } finally {
        await taints;
      }
    },
  };
}
