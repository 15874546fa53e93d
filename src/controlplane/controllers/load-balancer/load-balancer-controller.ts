import { isConflict, isNotFound } from "../../../api/errors.ts";
import { keyOf, type Stored } from "../../../api/object.ts";
import { SERVICES } from "../../../api/resources.ts";
import type { EndpointSlice } from "../../../api/types.gen.ts";
import { errorMessage } from "../../../lib/errors.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import type { ListeningSocket } from "../../../lib/listening-sockets.ts";
import type { StoredNode, StoredService } from "../endpoints/service-endpoints.ts";
import { patchObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop } from "../shared/controller.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { holdsHostPorts, hostPortsOf } from "./host-ports.ts";
import { balancerNode } from "./nodes.ts";
import { type Assignment, type BalancerPlan, claimsPorts, planLoadBalancers } from "./plan.ts";
import { assignmentPatch, type BalancerPatch, cleanupPatch } from "./status.ts";
import { hasFinalizer, needsCleanup, wantsNodeAddresses } from "./wanted.ts";

export interface LoadBalancerOptions {
  /** The machine that the control plane runs on; without it nothing is known of what listens there. */
  readonly machine?: {
    readonly nodeName: string;
    readonly apiServerPort: number;
    readonly listeners: () => Promise<readonly ListeningSocket[]>;
  };
}

/** The key that stands for all Services: who gets which address is decided for all together. */
const everything = "*";
/** Nobody tells when a program stops to listen. */
const listenersAgainMs = 10_000;
/** Deciding costs more than this only where there are very many Services. */
const shortMs = 5;
const longestPauseMs = 1000;
const serviceNameLabel = "kubernetes.io/service-name";

/**
 * The part of a cloud's service controller on machines without a cloud: Services of type LoadBalancer get addresses of
 * nodes, on which the Service proxy answers.
 */
export function loadBalancerController(
  context: ControllerContext,
  options: LoadBalancerOptions = {},
): Controller {
  return new LoadBalancers(context, options);
}

class LoadBalancers implements Controller {
  readonly name = "load-balancer";
  readonly #context: ControllerContext;
  readonly #options: LoadBalancerOptions;
  readonly #hostPortPods = new Map<string, StoredPod>();
  /** By key of their Service, then by their own. */
  readonly #slices = new Map<string, Map<string, EndpointSlice>>();
  #plan: BalancerPlan | undefined;
  /** What was said about a Service, so that it is said once. */
  readonly #told = new Map<string, string>();
  /** UIDs of Services that were seen to need it: one that changed to another class since does not look like it. */
  readonly #owedCleanup = new Set<string>();

  constructor(context: ControllerContext, options: LoadBalancerOptions) {
    this.#context = context;
    this.#options = options;
  }

  run(signal: AbortSignal): Promise<void> {
    const { endpointSlices, nodes, pods, services } = this.#context.informers;
    return runQueueLoop(
      {
        name: this.name,
        context: this.#context,
        waitFor: [services, nodes, pods, endpointSlices],
        sync: (key, queue, inner) =>
          key === everything ? this.#decide(queue, inner) : this.#sync(key, inner),
        subscribe: (queue) => [
          ...this.#followServices(queue),
          ...this.#followNodes(queue),
          this.#followPods(queue),
          this.#followSlices(queue),
        ],
      },
      signal,
    );
  }

  #followServices(queue: KeyedQueue): readonly (() => void)[] {
    return [
      this.#context.informers.services.subscribe((change) => {
        const { key } = change;
        if (change.kind === "deleted") {
          this.#told.delete(key);
          this.#owedCleanup.delete(change.previous.metadata.uid);
          if (claimsPorts(change.previous)) queue.add(everything);
          return;
        }
        const { object } = change;
        const previous = change.kind === "updated" ? change.previous : undefined;
        if (previous !== undefined) this.#tellOfRanges(previous, object);
        if (
          (claimsPorts(object) || (previous !== undefined && claimsPorts(previous))) &&
          (previous === undefined || claimsOf(previous) !== claimsOf(object))
        ) {
          queue.add(everything);
        } else if (claimsPorts(object)) {
          // Our own write, or somebody's who changed what we had written.
          queue.add(key);
        }
        if (needsCleanup(object)) {
          this.#owedCleanup.add(object.metadata.uid);
          queue.add(key);
        }
      }),
    ];
  }

  #followNodes(queue: KeyedQueue): readonly (() => void)[] {
    const facts = (node: StoredNode): string => JSON.stringify(balancerNode(node));
    return [
      this.#context.informers.nodes.subscribe((change) => {
        // Heartbeats are no news here.
        if (change.kind === "updated" && facts(change.previous) === facts(change.object)) return;
        queue.add(everything);
      }),
    ];
  }

  #followPods(queue: KeyedQueue): () => void {
    const held = (pod: StoredPod | undefined): string =>
      pod === undefined || !holdsHostPorts(pod)
        ? ""
        : JSON.stringify([pod.metadata.uid, pod.metadata.labels, pod.spec?.nodeName]);
    return this.#context.informers.pods.subscribe((change) => {
      const before = this.#hostPortPods.get(change.key);
      const after = change.kind === "deleted" ? undefined : change.object;
      const has = after !== undefined && hostPortsOf(after).length > 0;
      if (has) this.#hostPortPods.set(change.key, after);
      else this.#hostPortPods.delete(change.key);
      if (held(before) !== held(has ? after : undefined)) queue.add(everything);
    });
  }

  #followSlices(queue: KeyedQueue): () => void {
    return this.#context.informers.endpointSlices.subscribe((change) => {
      const before = change.kind === "added" ? undefined : change.previous;
      const after = change.kind === "deleted" ? undefined : change.object;
      for (const slice of [before, after]) {
        const service = slice === undefined ? undefined : serviceKeyOf(slice);
        if (service === undefined) continue;
        const slices = this.#slices.get(service) ?? new Map<string, EndpointSlice>();
        if (slice === after && after !== undefined) slices.set(change.key, after);
        else slices.delete(change.key);
        if (slices.size > 0) this.#slices.set(service, slices);
        else this.#slices.delete(service);
        const found = this.#context.informers.services.get(service);
        if (found?.spec?.externalTrafficPolicy === "Local" && wantsNodeAddresses(found)) {
          queue.add(everything);
        }
      }
    });
  }

  /** Shares all addresses out anew, and wakes the Services that do not have what is theirs. */
  async #decide(queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const { clock, informers } = this.#context;
    const wanted = [...informers.services.values()].some((service) => wantsNodeAddresses(service));
    const { machine } = this.#options;
    const listeners = wanted && machine !== undefined ? await machine.listeners() : [];
    const startedAt = clock.monotonic();
    this.#plan = planLoadBalancers({
      services: informers.services.values(),
      nodes: [...informers.nodes.values()]
        .map((node) => balancerNode(node))
        .toSorted((a, b) => (a.name < b.name ? -1 : 1)),
      pods: this.#hostPortPods.values(),
      slicesOf: (key) => this.#slices.get(key)?.values() ?? [],
      machine:
        machine === undefined
          ? undefined
          : { nodeName: machine.nodeName, apiServerPort: machine.apiServerPort, listeners },
    });
    const { assignments, hidden } = this.#plan;
    for (const [key, assignment] of assignments) {
      const service = informers.services.get(key);
      if (service === undefined) continue;
      const settled = assignmentPatch(service, assignment, clock.now()) === undefined;
      if (!settled || this.#told.get(key) !== problemText(assignment, hidden.get(key))) {
        queue.add(key);
      }
    }
    for (const key of this.#told.keys()) {
      if (!assignments.has(key) && !hidden.has(key)) this.#told.delete(key);
    }
    for (const [key, text] of hidden) if (!assignments.has(key)) this.#tellHidden(key, text);
    const refused = [...assignments.values()].some(({ problems }) =>
      problems.some(({ conflict }) => conflict),
    );
    if (refused && machine !== undefined) queue.addAfter(everything, listenersAgainMs);
    // Of thousands, created one by one, each would cost as much as all: what comes meanwhile is decided together.
    const tookMs = clock.monotonic() - startedAt;
    if (tookMs > shortMs) await clock.sleep(Math.min(2 * tookMs, longestPauseMs), signal);
  }

  async #sync(key: string, signal: AbortSignal): Promise<void> {
    const { informers } = this.#context;
    const service = informers.services.get(key);
    if (service === undefined) return;
    if (!wantsNodeAddresses(service)) {
      const owed = this.#owedCleanup.has(service.metadata.uid) && hasFinalizer(service);
      if (owed || needsCleanup(service)) await this.#cleanUp(service, signal);
      return;
    }
    const assignment = this.#plan?.assignments.get(key);
    // One that is newer than the plan has its turn when all are decided.
    if (assignment !== undefined) await this.#ensure(service, assignment, signal);
  }

  async #ensure(
    service: StoredService,
    assignment: Assignment,
    signal: AbortSignal,
  ): Promise<void> {
    const found = assignmentPatch(service, assignment, this.#context.clock.now());
    if (found !== undefined) {
      // Its next state wakes us.
      if (!(await this.#patch(service, found.patch, signal))) return;
    }
    const key = keyOf(service);
    const text = problemText(assignment, this.#plan?.hidden.get(key));
    if (found?.change === "ensured") {
      this.#event(service, "Normal", "EnsuringLoadBalancer", "Ensuring load balancer");
      if (assignment.ingress.length > 0) {
        this.#event(service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer");
      }
    } else if (found?.change === "hosts" && assignment.ingress.length > 0) {
      this.#event(service, "Normal", "UpdatedLoadBalancer", "Updated load balancer with new hosts");
    }
    if (this.#told.get(key) === text) return;
    this.#told.set(key, text);
    for (const { reason, message } of assignment.problems) {
      this.#event(service, "Warning", reason, message);
    }
    this.#tellHidden(key, this.#plan?.hidden.get(key));
  }

  async #cleanUp(service: StoredService, signal: AbortSignal): Promise<void> {
    const patch = cleanupPatch(service, this.#context.clock.now());
    if (!(await this.#patch(service, patch, signal))) return;
    this.#told.delete(keyOf(service));
    this.#owedCleanup.delete(service.metadata.uid);
    this.#event(service, "Normal", "DeletingLoadBalancer", "Deleting load balancer");
    this.#event(service, "Normal", "DeletedLoadBalancer", "Deleted load balancer");
  }

  /** @returns False when somebody else changed or removed the Service meanwhile. */
  async #patch(
    service: StoredService,
    patch: BalancerPatch,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { name, namespace } = service.metadata;
    const target = { resource: SERVICES, namespace, name, subresource: "status" };
    try {
      await patchObject(
        this.#context.client,
        target,
        patch,
        signal,
        "application/merge-patch+json",
      );
      return true;
    } catch (error) {
      if (isConflict(error) || isNotFound(error)) return false;
      if (!signal.aborted) {
        const message = `Error syncing load balancer: failed to update load balancer status: ${errorMessage(error)}`;
        this.#event(service, "Warning", "SyncLoadBalancerFailed", message);
      }
      throw error;
    }
  }

  #tellOfRanges(before: StoredService, after: StoredService): void {
    if (!wantsNodeAddresses(after)) return;
    const text = ({ spec }: StoredService): string =>
      `[${(spec?.loadBalancerSourceRanges ?? []).join(" ")}]`;
    if (text(before) === text(after)) return;
    this.#event(after, "Normal", "LoadBalancerSourceRanges", `${text(before)} -> ${text(after)}`);
  }

  #tellHidden(key: string, text: string | undefined): void {
    const service = this.#context.informers.services.get(key);
    if (text === undefined || service === undefined) return;
    if (!wantsNodeAddresses(service)) {
      if (this.#told.get(key) === text) return;
      this.#told.set(key, text);
    }
    this.#event(service, "Warning", "ServicePortHidden", text);
  }

  #event(
    service: StoredService,
    type: "Normal" | "Warning",
    reason: string,
    message: string,
  ): void {
    this.#context.recorder.event(eventTarget(SERVICES, service), type, reason, message);
  }
}

/** What of a Service decides about itself and others. Addresses that we gave do not: we know them. */
function claimsOf(service: StoredService): string {
  const { metadata, spec, status } = service;
  const given = wantsNodeAddresses(service) ? undefined : status?.loadBalancer;
  return JSON.stringify([metadata.uid, metadata.deletionTimestamp, spec, given]);
}

function problemText({ problems }: Assignment, hidden = ""): string {
  return [...problems.map(({ message }) => message), hidden].join("\n");
}

function serviceKeyOf({ metadata }: Stored<EndpointSlice>): string | undefined {
  const name = metadata.labels?.[serviceNameLabel];
  return name === undefined ? undefined : `${metadata.namespace ?? ""}/${name}`;
}
