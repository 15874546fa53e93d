import { parseStored } from "../../api/object.ts";
import { objectPath } from "../../api/resource.ts";
import { NODES } from "../../api/resources.ts";
import type { Node } from "../../api/types.gen.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import { isTerminalPhase } from "../spec/containers.ts";
import { allocatedPod } from "../spec/resize.ts";
import type { AssignedPod } from "../types.ts";
import { type Admission, type AdmissionInput, decideAdmission, type Refusal } from "./admission.ts";
import { podTarget } from "./event-target.ts";
import type { PodDeps } from "./pod-deps.ts";
import type { PodEntry } from "./pod-entry.ts";
import { choosePreempted } from "./preemption.ts";

export interface AdmitterOptions {
  readonly deps: Pick<
    PodDeps,
    "client" | "clock" | "config" | "events" | "logger" | "metrics" | "node" | "runtimeInfo"
  >;
  readonly entries: ReadonlyMap<string, PodEntry>;
  /** It ran before this process began: it is not admitted anew. */
  readonly isAdopted: (uid: string) => boolean;
  readonly wake: (uid: string) => void;
  readonly signal: AbortSignal;
}

const nodeDeadlineMs = 5000;
const preempted = "Preempted in order to admit critical pod";

/**
 * Decides which pods may run. One at a time, in order of creation, against what those that were admitted before hold
 * until their last container has stopped.
 */
export class Admitter {
  readonly #options: AdmitterOptions;
  readonly #rejected = new Set<string>();
  /** Critical pods that wait for others to be gone, with the uids of those. */
  readonly #waiting = new Map<string, ReadonlySet<string>>();
  #turn: Promise<void> = Promise.resolve();

  constructor(options: AdmitterOptions) {
    this.#options = options;
  }

  /** Decides about every pod that nothing was decided about. Resolves when `entry` is among the decided. */
  async admitPending(): Promise<void> {
    const turn = this.#turn.then(() => this.#admitAll());
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  /** False while the pods that make room for this one still hold it. */
  hasRoom(uid: string): boolean {
    const victims = this.#waiting.get(uid);
    if (victims === undefined) return true;
    for (const victim of victims) {
      const entry = this.#options.entries.get(victim);
      if (entry !== undefined && this.#holds(entry)) return false;
    }
    this.#waiting.delete(uid);
    return true;
  }

  /** Call after each look at a pod: others may have waited for its end. */
  looked(uid: string): void {
    const entry = this.#options.entries.get(uid);
    if (entry === undefined) this.#rejected.delete(uid);
    for (const [waiting, victims] of this.#waiting) {
      if (!this.#options.entries.has(waiting)) this.#waiting.delete(waiting);
      else if (victims.has(uid) && (entry === undefined || !this.#holds(entry))) {
        this.#options.wake(waiting);
      }
    }
  }

  async #admitAll(): Promise<void> {
    const { entries, isAdopted } = this.#options;
    const pending = [...entries.values()].filter(
      (entry) => !entry.admitted && entry.pod !== undefined && !entry.removed,
    );
    const created = ({ pod }: PodEntry): string => pod?.metadata.creationTimestamp ?? "";
    const rank = ({ uid }: PodEntry): number => Number(!isAdopted(uid));
    pending.sort((a, b) => rank(a) - rank(b) || created(a).localeCompare(created(b), "en"));
    for (const entry of pending) await this.#admit(entry);
  }

  async #admit(entry: PodEntry): Promise<void> {
    const { pod } = entry;
    if (pod === undefined || entry.admitted) return;
    const ends = pod.metadata.deletionTimestamp !== undefined;
    if (this.#options.isAdopted(entry.uid) || isTerminalPhase(pod.status?.phase) || ends) {
      entry.admitted = true;
      return;
    }
    const others = this.#othersThan(entry);
    const { config, node, runtimeInfo } = this.#options.deps;
    const input: AdmissionInput = {
      node: node.node(),
      nodeName: config.nodeName,
      others: others.map((other) => other.pod),
      allowedUnsafeSysctls: config.allowedUnsafeSysctls,
      features: runtimeInfo().features,
    };
    let admission: Admission = decideAdmission(pod, input);
    if (admission.kind === "refuse" && admission.onlyNodeAffinity) {
      // Labels may have changed a moment ago: the scheduler has seen them, our watch has not.
      const live = await this.#liveNode();
      if (live !== undefined) admission = decideAdmission(pod, { ...input, node: live });
    }
    entry.admitted = true;
    if (admission.kind === "refuse") this.#reject(entry, pod, admission.refusal);
    if (admission.kind !== "preempt") return;
    const choice = choosePreempted(pod, input.others, admission.shortages);
    if (choice.kind === "impossible") {
      const message = `Unexpected error while attempting to recover from admission failure: ${choice.message}`;
      this.#reject(entry, pod, { reason: "UnexpectedAdmissionError", message });
      return;
    }
    const chosen = new Set(choice.pods);
    const victims = others.filter((other) => chosen.has(other.pod)).map((other) => other.entry);
    this.#waiting.set(entry.uid, new Set(victims.map(({ uid }) => uid)));
    for (const victim of victims) this.#preempt(victim, pod);
    const { metrics } = this.#options.deps;
    for (const { resource } of admission.shortages) metrics?.pods.preempted(resource);
  }

  #reject(entry: PodEntry, pod: AssignedPod, { message, reason }: Refusal): void {
    this.#rejected.add(entry.uid);
    this.#options.deps.metrics?.pods.rejected(reason);
    entry.verdict = { reason, message: `Pod was rejected: ${message}`, conditions: [] };
    this.#options.deps.events.event(podTarget(pod), "Warning", reason, message);
  }

  #preempt(victim: PodEntry, preemptor: AssignedPod): void {
    const { clock, events, logger } = this.#options.deps;
    const { pod } = victim;
    if (pod === undefined) return;
    events.event(podTarget(pod), "Warning", "Preempting", preempted);
    logger.log("info", "pod makes room for a critical one", {
      podUID: victim.uid,
      pod: `${victim.namespace}/${victim.name}`,
      preemptorUID: preemptor.metadata.uid,
    });
    const { generation } = pod.metadata;
    victim.verdict ??= {
      reason: "Preempting",
      message: preempted,
      conditions: [
        {
          type: "DisruptionTarget",
          status: "True",
          reason: "TerminationByKubelet",
          message: "Pod was preempted by Kubelet to accommodate a critical pod.",
          lastTransitionTime: new Date(clock.now()).toISOString().replace(/\.\d+Z$/, "Z"),
          ...(generation === undefined ? {} : { observedGeneration: generation }),
        },
      ],
    };
    this.#options.wake(victim.uid);
  }

  /** Whether the pod has what it asked for, until its last container has stopped. */
  #holds(entry: PodEntry): boolean {
    if (!entry.admitted || entry.tornDown || entry.pod === undefined) return false;
    return !this.#rejected.has(entry.uid) && !isTerminalPhase(entry.pod.status?.phase);
  }

  /** Pods beside this one that hold something, with what they were granted. */
  #othersThan(entry: PodEntry): readonly { readonly entry: PodEntry; readonly pod: AssignedPod }[] {
    return [...this.#options.entries.values()].flatMap((other) => {
      if (other === entry || other.pod === undefined || !this.#holds(other)) return [];
      return [{ entry: other, pod: allocatedPod(other.pod, other.allocation) }];
    });
  }

  async #liveNode(): Promise<Node | undefined> {
    const { client, config, logger } = this.#options.deps;
    const signal = AbortSignal.any([this.#options.signal, AbortSignal.timeout(nodeDeadlineMs)]);
    try {
      const path = objectPath(NODES, { name: config.nodeName });
      return parseStored<Node>(await client.request({ method: "GET", path, signal }));
    } catch (error) {
      if (this.#options.signal.aborted && isAbort(error)) throw error;
      logger.log("warn", "the node could not be read for admission", {
        error: errorMessage(error),
      });
      return undefined;
    }
  }
}
