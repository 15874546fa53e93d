import type { EventRecorder } from "../../api/event-types.ts";
import type { Probe } from "../../api/types.gen.ts";
import type { Clock } from "../../lib/clock.ts";
import { isAbort } from "../../lib/errors.ts";
import type { ContainerRuntime } from "../../runtime/types.ts";
import type { ProbedContainer, ProbeMetrics, ProbeResult } from "../stats/probe-metrics.ts";
import type { ProbeView } from "../status/observed.ts";
import { containerTarget } from "./event-target.ts";
import { type ProbeKind, type ProbeOutcome, probeOf, type ProbeTarget } from "./probe-types.ts";
import { ProbeWheel } from "./probe-wheel.ts";
import { runProbe } from "./run-probe.ts";

export interface ProberOptions {
  readonly runtime: Pick<ContainerRuntime, "execSync">;
  readonly events: EventRecorder;
  readonly clock: Clock;
  /** In [0, 1). */
  readonly random: () => number;
  readonly signal: AbortSignal;
  /** A result has flipped. */
  readonly wake: (uid: string) => void;
  readonly metrics?: ProbeMetrics;
}

interface Worker {
  readonly key: string;
  readonly kind: ProbeKind;
  readonly uid: string;
  readonly probe: Probe;
  readonly stop: AbortController;
  /** As last told: events name the pod as it is now. */
  target: ProbeTarget;
  result: boolean | undefined;
  /** How often in a row it went as last time. */
  streak: number;
  last: boolean | undefined;
  /** A probe is under way. */
  busy: boolean;
}

const tickMs = 250;
const maxTries = 3;
const labels = {
  startup: "Startup",
  readiness: "Readiness",
  liveness: "Liveness",
} as const;

const results: Readonly<Record<ProbeOutcome["kind"], ProbeResult>> = {
  success: "successful",
  warning: "successful",
  failure: "failed",
  error: "unknown",
};

function probedContainer({ kind, target: { entry, pod }, uid }: Worker): ProbedContainer {
  const { name, namespace = "" } = pod.metadata;
  const { name: container } = entry.container;
  return { kind: labels[kind], container, pod: name, namespace, podUID: uid };
}

function isSameProbe(a: Worker, b: Worker): boolean {
  const same = a.uid === b.uid && a.kind === b.kind;
  return same && a.target.entry.container.name === b.target.entry.container.name;
}

function periodMs({ periodSeconds = 10 }: Probe): number {
  return Math.max(periodSeconds, 1) * 1000;
}

/**
 * Probes running containers, results by container id. Liveness and readiness wait for the startup probe. A failed
 * liveness probe, and a startup probe that has decided, hold until their container is gone.
 */
export class Prober implements ProbeView {
  readonly #options: ProberOptions;
  readonly #workers = new Map<string, Worker>();
  readonly #running = new Set<Promise<void>>();
  readonly #wheel: ProbeWheel;
  /** When this process began to probe, milliseconds since the epoch. */
  readonly #startedAt: number;

  constructor(options: ProberOptions) {
    this.#options = options;
    const { clock, signal } = options;
    this.#wheel = new ProbeWheel({ clock, signal, tickMs });
    this.#startedAt = clock.now();
  }

  startup(containerID: string): boolean | undefined {
    return this.#workers.get(`startup ${containerID}`)?.result;
  }

  readiness(containerID: string): boolean | undefined {
    return this.#workers.get(`readiness ${containerID}`)?.result;
  }

  liveness(containerID: string): boolean | undefined {
    return this.#workers.get(`liveness ${containerID}`)?.result;
  }

  /** Probes exactly these containers of the pod from now on; while terminating only readiness goes on. */
  sync(uid: string, targets: readonly ProbeTarget[], terminating: boolean): void {
    const wanted = new Set<string>();
    const kinds: readonly ProbeKind[] = terminating
      ? ["readiness"]
      : ["startup", "readiness", "liveness"];
    for (const target of targets) {
      for (const kind of kinds) {
        const probe = probeOf(target.entry, kind);
        if (probe === undefined) continue;
        const key = `${kind} ${target.containerID}`;
        wanted.add(key);
        const known = this.#workers.get(key);
        if (known === undefined) this.#start(key, kind, probe, target);
        else known.target = target;
      }
    }
    for (const worker of this.#workers.values()) {
      if (worker.uid === uid && !wanted.has(worker.key)) this.#drop(worker);
    }
  }

  /** Resolves when no probe runs any more; call after the signal has aborted. */
  async idle(): Promise<void> {
    await Promise.all([...this.#running, this.#wheel.idle()]);
  }

  #start(key: string, kind: ProbeKind, probe: Probe, target: ProbeTarget): void {
    const { clock, random } = this.#options;
    const worker: Worker = {
      key,
      kind,
      uid: target.pod.metadata.uid,
      probe,
      stop: new AbortController(),
      target,
      // Proven once is proven: a container is not killed because a restarted agent asks again.
      result: kind === "startup" && target.started ? true : undefined,
      streak: 0,
      last: undefined,
      busy: false,
    };
    this.#workers.set(key, worker);
    if (worker.result !== undefined) return;
    const initialMs = (probe.initialDelaySeconds ?? 0) * 1000;
    const delayMs = Math.max(target.startedAt + initialMs - clock.now(), 0);
    // All that ran before this process did would otherwise be probed in the same moment.
    const adopted = target.startedAt < this.#startedAt;
    const spreadMs =
      adopted && clock.now() - this.#startedAt < periodMs(probe) ? random() * periodMs(probe) : 0;
    this.#set(worker, Math.max(delayMs, spreadMs));
  }

  #drop(worker: Worker): void {
    worker.stop.abort();
    this.#workers.delete(worker.key);
    this.#wheel.clear(worker.key);
    const { metrics } = this.#options;
    if (metrics === undefined) return;
    const goesOn = [...this.#workers.values()].some((other) => isSameProbe(worker, other));
    // With the next run of its container it is the same probe.
    if (!goesOn) metrics.ended(probedContainer(worker));
  }

  #set(worker: Worker, ms: number): void {
    this.#wheel.set(worker.key, ms, () => this.#due(worker));
  }

  #due(worker: Worker): void {
    if (worker.busy || worker.stop.signal.aborted) return;
    if (!this.#mayProbe(worker)) {
      // The startup probe's success sets it earlier where that matters.
      this.#set(worker, periodMs(worker.probe));
      return;
    }
    worker.busy = true;
    const run = this.#probe(worker);
    this.#running.add(run);
    void run.finally(() => this.#running.delete(run));
  }

  #mayProbe({ kind, target }: Worker): boolean {
    if (kind === "startup" || target.entry.container.startupProbe === undefined) return true;
    return this.startup(target.containerID) === true;
  }

  async #probe(worker: Worker): Promise<void> {
    const { clock, signal } = this.#options;
    const startedAt = clock.monotonic();
    const stop = AbortSignal.any([signal, worker.stop.signal]);
    try {
      const outcome = await this.#attempt(worker, stop);
      stop.throwIfAborted();
      const seconds = (clock.monotonic() - startedAt) / 1000;
      this.#options.metrics?.probed(probedContainer(worker), results[outcome.kind], seconds);
      if (outcome.kind !== "error") this.#note(worker, outcome.kind !== "failure");
    } catch (error) {
      if (!isAbort(error) && !stop.aborted) throw error;
      return;
    } finally {
      worker.busy = false;
    }
    if (worker.kind === "startup" && worker.result !== undefined) return;
    if (worker.kind === "liveness" && worker.result === false) return;
    this.#set(worker, startedAt + periodMs(worker.probe) - clock.monotonic());
  }

  /** Counts a result and applies the thresholds. */
  #note(worker: Worker, success: boolean): void {
    const { failureThreshold = 3, successThreshold = 1 } = worker.probe;
    worker.streak = success === worker.last ? worker.streak + 1 : 1;
    worker.last = success;
    const threshold = success ? successThreshold : failureThreshold;
    if (worker.streak < threshold || worker.result === success) return;
    worker.result = success;
    if (worker.kind === "startup" && success) this.#probeReadiness(worker.target.containerID);
    this.#options.wake(worker.uid);
  }

  /** A container that has just started need not wait for its turn to become ready. */
  #probeReadiness(containerID: string): void {
    const worker = this.#workers.get(`readiness ${containerID}`);
    if (worker === undefined) return;
    const { clock } = this.#options;
    const initialMs = (worker.probe.initialDelaySeconds ?? 0) * 1000;
    this.#set(worker, Math.max(worker.target.startedAt + initialMs - clock.now(), 0));
  }

  async #attempt(worker: Worker, signal: AbortSignal): Promise<ProbeOutcome> {
    const { events } = this.#options;
    let outcome: ProbeOutcome = { kind: "error", message: "" };
    for (let tries = 0; tries < maxTries && outcome.kind === "error"; tries += 1) {
      outcome = await runProbe(this.#options, worker.probe, worker.target, signal);
    }
    if (signal.aborted || outcome.kind === "success") return outcome;
    const at = containerTarget(worker.target.pod, worker.target.entry);
    const label = `${labels[worker.kind]} probe`;
    switch (outcome.kind) {
      case "warning":
        events.event(at, "Warning", "ProbeWarning", `${label} warning: ${outcome.output}`);
        break;
      case "failure":
        events.event(at, "Warning", "Unhealthy", `${label} failed: ${outcome.output}`);
        break;
      case "error": {
        const text = `${label} errored and resulted in unknown state: ${outcome.message}`;
        events.event(at, "Warning", "Unhealthy", text);
      }
    }
    return outcome;
  }
}
