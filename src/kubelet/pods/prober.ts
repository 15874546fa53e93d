import { connect } from "node:net";

import type { EventRecorder } from "../../api/event-types.ts";
import type { Probe } from "../../api/types.gen.ts";
import { type Clock, deadline } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import type { ContainerRuntime } from "../../runtime/types.ts";
import { expandReferences } from "../spec/expand.ts";
import type { PodContainer } from "../spec/containers.ts";
import type { ProbeView } from "../status/observed.ts";
import type { AssignedPod } from "../types.ts";
import { containerTarget } from "./event-target.ts";
import { grpcProbe } from "./grpc-probe.ts";
import { type HttpAnswer, type HttpCall, httpGet } from "./http-call.ts";
import { resolvePort } from "./ports.ts";

export type ProbeKind = "startup" | "readiness" | "liveness";

export interface ProberOptions {
  readonly runtime: Pick<ContainerRuntime, "execSync">;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** A result has flipped. */
  readonly wake: (uid: string) => void;
}

/** One running container to probe. */
export interface ProbeTarget {
  readonly pod: AssignedPod;
  readonly entry: PodContainer;
  readonly containerID: string;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly podIP: string;
}

type Outcome =
  | { readonly kind: "success" }
  | { readonly kind: "failure"; readonly output: string }
  | { readonly kind: "error"; readonly message: string };

interface Worker {
  readonly kind: ProbeKind;
  readonly uid: string;
  readonly stop: AbortController;
  result: boolean | undefined;
}

const maxOutputBytes = 10 * 1024;
const userAgent = "kube-probe/1.36";
const labels: Readonly<Record<ProbeKind, string>> = {
  startup: "Startup",
  readiness: "Readiness",
  liveness: "Liveness",
};

function probeOf(entry: PodContainer, kind: ProbeKind): Probe | undefined {
  const { startupProbe, readinessProbe, livenessProbe } = entry.container;
  return { startup: startupProbe, readiness: readinessProbe, liveness: livenessProbe }[kind];
}

/** Environment that exec probes may refer to: literal values only, as the API documents. */
function literalEnvironment(entry: PodContainer): ReadonlyMap<string, string> {
  return new Map(
    (entry.container.env ?? []).flatMap(({ name, value }) =>
      value === undefined ? [] : [[name, value] as const],
    ),
  );
}

/**
 * Probes running containers: one loop per container and kind, results by container id. Liveness and readiness wait for
 * the startup probe. A failed liveness or startup probe holds until its container is gone.
 */
export class Prober implements ProbeView {
  readonly #options: ProberOptions;
  readonly #workers = new Map<string, Worker>();
  readonly #running = new Set<Promise<void>>();

  constructor(options: ProberOptions) {
    this.#options = options;
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
        if (probeOf(target.entry, kind) === undefined) continue;
        const key = `${kind} ${target.containerID}`;
        wanted.add(key);
        if (!this.#workers.has(key)) this.#start(key, kind, target);
      }
    }
    for (const [key, worker] of this.#workers) {
      if (worker.uid !== uid || wanted.has(key)) continue;
      worker.stop.abort();
      this.#workers.delete(key);
    }
  }

  /** Resolves when no probe runs any more. */
  async idle(): Promise<void> {
    await Promise.all(this.#running);
  }

  #start(key: string, kind: ProbeKind, target: ProbeTarget): void {
    const { uid } = target.pod.metadata;
    const worker: Worker = { kind, uid, stop: new AbortController(), result: undefined };
    this.#workers.set(key, worker);
    const signal = AbortSignal.any([this.#options.signal, worker.stop.signal]);
    const run = this.#loop(worker, target, signal).catch((error: unknown) => {
      if (!isAbort(error) && !signal.aborted) throw error;
    });
    this.#running.add(run);
    void run.finally(() => this.#running.delete(run));
  }

  async #loop(worker: Worker, target: ProbeTarget, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const probe = probeOf(target.entry, worker.kind);
    if (probe === undefined) return;
    const periodMs = Math.max(probe.periodSeconds ?? 10, 1) * 1000;
    const initialMs = (probe.initialDelaySeconds ?? 0) * 1000;
    await clock.sleep(Math.max(target.startedAt + initialMs - clock.now(), 0), signal);
    let streak = 0;
    let last: Outcome["kind"] | undefined;
    while (!signal.aborted) {
      if (this.#mayProbe(worker, target)) {
        const outcome = await this.#attempt(worker.kind, probe, target, signal);
        signal.throwIfAborted();
        if (outcome.kind !== "error") {
          streak = outcome.kind === last ? streak + 1 : 1;
          last = outcome.kind;
          if (this.#settle(worker, probe, outcome.kind, streak)) this.#options.wake(worker.uid);
        }
        if (worker.kind === "startup" && worker.result !== undefined) return;
        if (worker.kind === "liveness" && worker.result === false) return;
      }
      await clock.sleep(periodMs, signal);
    }
  }

  #mayProbe(worker: Worker, target: ProbeTarget): boolean {
    if (worker.kind === "startup" || target.entry.container.startupProbe === undefined) return true;
    return this.startup(target.containerID) === true;
  }

  /** Applies the thresholds; true when the result flipped. */
  #settle(worker: Worker, probe: Probe, kind: "success" | "failure", streak: number): boolean {
    const threshold =
      kind === "success" ? (probe.successThreshold ?? 1) : (probe.failureThreshold ?? 3);
    if (streak < threshold) return false;
    const result = kind === "success";
    const flipped = worker.result !== result;
    worker.result = result;
    return flipped;
  }

  async #attempt(
    kind: ProbeKind,
    probe: Probe,
    target: ProbeTarget,
    signal: AbortSignal,
  ): Promise<Outcome> {
    let outcome: Outcome = { kind: "error", message: "" };
    for (let tries = 0; tries < 3 && outcome.kind === "error"; tries += 1) {
      outcome = await this.#once(probe, target, signal);
    }
    const at = containerTarget(target.pod, target.entry);
    if (outcome.kind === "failure") {
      const text = `${labels[kind]} probe failed: ${outcome.output}`;
      this.#options.events.event(at, "Warning", "Unhealthy", text);
    } else if (outcome.kind === "error") {
      const text = `${labels[kind]} probe errored and resulted in unknown state: ${outcome.message}`;
      this.#options.events.event(at, "Warning", "Unhealthy", text);
    }
    return outcome;
  }

  async #once(probe: Probe, target: ProbeTarget, signal: AbortSignal): Promise<Outcome> {
    const timeoutMs = Math.max(probe.timeoutSeconds ?? 1, 1) * 1000;
    try {
      if (probe.exec !== undefined) return await this.#exec(probe, target, timeoutMs, signal);
      if (probe.httpGet !== undefined)
        return await httpProbe(probe.httpGet, target, deadline(signal, timeoutMs));
      if (probe.tcpSocket !== undefined) {
        return await tcpProbe(probe.tcpSocket, target, deadline(signal, timeoutMs));
      }
      if (probe.grpc !== undefined) {
        const { port, service = "" } = probe.grpc;
        const call = { host: target.podIP, port, service, userAgent, timeoutMs };
        return await grpcProbe(call, deadline(signal, timeoutMs));
      }
      return { kind: "error", message: "missing probe handler" };
    } catch (error) {
      if (signal.aborted) throw error;
      return { kind: "error", message: errorMessage(error) };
    }
  }

  async #exec(
    probe: Probe,
    target: ProbeTarget,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<Outcome> {
    const environment = literalEnvironment(target.entry);
    const command = (probe.exec?.command ?? []).map((word) =>
      expandReferences(word, (name) => environment.get(name)),
    );
    const limits = { timeoutMs, maxBytes: maxOutputBytes };
    const { execSync } = this.#options.runtime;
    const result = await execSync.call(
      this.#options.runtime,
      target.containerID,
      command,
      limits,
      signal,
    );
    if (result.timedOut) {
      const words = command.join(" ");
      return {
        kind: "failure",
        output: `command timed out: "${words}" timed out after ${timeoutMs / 1000}s`,
      };
    }
    if (result.exitCode === 0) return { kind: "success" };
    const output = Buffer.concat([result.stdout, result.stderr]).subarray(0, maxOutputBytes);
    return { kind: "failure", output: output.toString("utf8") };
  }
}

async function httpProbe(
  action: NonNullable<Probe["httpGet"]>,
  target: ProbeTarget,
  signal: AbortSignal,
): Promise<Outcome> {
  const host = action.host === undefined || action.host === "" ? target.podIP : action.host;
  let call: HttpCall = {
    scheme: action.scheme ?? "HTTP",
    host,
    port: resolvePort(target.entry.container, action.port),
    path: action.path ?? "/",
    headers: action.httpHeaders ?? [],
    userAgent,
    maxBytes: maxOutputBytes,
  };
  try {
    for (let redirects = 0; redirects <= 10; redirects += 1) {
      const answer = await httpGet(call, signal);
      const next = redirectOf(answer, call);
      if (next === undefined) return httpOutcome(answer);
      // Off this host it is somebody else's health.
      if (next.host !== call.host) return { kind: "success" };
      call = next;
    }
    return { kind: "failure", output: "stopped after 10 redirects" };
  } catch (error) {
    const url = `${call.scheme.toLowerCase()}://${call.host}:${call.port}${call.path}`;
    return { kind: "failure", output: `Get "${url}": ${transportMessage(error)}` };
  }
}

function transportMessage(error: unknown): string {
  return isAbort(error)
    ? "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    : errorMessage(error);
}

function httpOutcome(answer: HttpAnswer): Outcome {
  if (answer.status >= 200 && answer.status < 400) return { kind: "success" };
  return { kind: "failure", output: `HTTP probe failed with statuscode: ${answer.status}` };
}

function redirectOf(answer: HttpAnswer, call: HttpCall): HttpCall | undefined {
  if (![301, 302, 303, 307, 308].includes(answer.status) || answer.location === undefined) {
    return undefined;
  }
  const host = call.host.includes(":") ? `[${call.host}]` : call.host;
  const base = `${call.scheme.toLowerCase()}://${host}:${call.port}${call.path}`;
  const url = URL.canParse(answer.location, base) ? new URL(answer.location, base) : undefined;
  if (url === undefined) return undefined;
  const scheme = url.protocol === "https:" ? "HTTPS" : "HTTP";
  return {
    ...call,
    scheme,
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? (scheme === "HTTPS" ? 443 : 80) : Number(url.port),
    path: `${url.pathname}${url.search}`,
  };
}

async function tcpProbe(
  action: NonNullable<Probe["tcpSocket"]>,
  target: ProbeTarget,
  signal: AbortSignal,
): Promise<Outcome> {
  const host = action.host === undefined || action.host === "" ? target.podIP : action.host;
  const port = resolvePort(target.entry.container, action.port);
  return new Promise<Outcome>((resolve) => {
    const socket = connect({ host, port });
    const finish = (outcome: Outcome): void => {
      signal.removeEventListener("abort", onAbort);
      socket.destroy();
      resolve(outcome);
    };
    const onAbort = (): void =>
      finish({ kind: "failure", output: `dial tcp ${host}:${port}: i/o timeout` });
    signal.addEventListener("abort", onAbort, { once: true });
    socket.once("connect", () => finish({ kind: "success" }));
    socket.once("error", (error) =>
      finish({ kind: "failure", output: `dial tcp ${host}:${port}: ${error.message}` }),
    );
    if (signal.aborted) onAbort();
  });
}
