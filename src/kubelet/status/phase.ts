import type { ContainerStatus } from "../../api/types.gen.ts";
import {
  initContainers,
  type PodContainer,
  regularContainers,
  shouldRestart,
} from "../spec/containers.ts";
import type { AssignedPod } from "../types.ts";
import { restartingAllContainers } from "./restarting-all.ts";

export type PodPhase = "Pending" | "Running" | "Succeeded" | "Failed";

export interface PhaseInput {
  readonly pod: AssignedPod;
  /** Status of init and regular containers. */
  readonly statuses: readonly ContainerStatus[];
  /** Nothing will be restarted any more. */
  readonly terminal: boolean;
  readonly initialized: boolean;
}

/** How one container counts for the phase. */
type Count =
  | { readonly kind: "running"; readonly started: boolean }
  | { readonly kind: "stopped"; readonly exitCode: number; readonly restartable: boolean }
  | { readonly kind: "waiting" }
  | { readonly kind: "unknown" };

function countOf(
  { pod, statuses }: Pick<PhaseInput, "pod" | "statuses">,
  entry: PodContainer,
): Count {
  const status = statuses.find((candidate) => candidate.name === entry.container.name);
  const state = status?.state;
  if (state?.running !== undefined) return { kind: "running", started: status?.started ?? false };
  // A container that waits for its restart counts by how it ended.
  const ended =
    state?.terminated ?? (state?.waiting === undefined ? undefined : status?.lastState?.terminated);
  if (ended !== undefined) {
    const { exitCode, reason } = ended;
    // What was removed on the way of a restart of all runs again, whatever its exit code.
    const restartable = reason === restartingAllContainers || shouldRestart(pod, entry, exitCode);
    return { kind: "stopped", exitCode, restartable };
  }
  return state?.waiting === undefined ? { kind: "unknown" } : { kind: "waiting" };
}

type InitProgress = "failed" | "pending" | "done";

function initProgress(input: PhaseInput): InitProgress {
  let progress: InitProgress = "done";
  for (const entry of initContainers(input.pod)) {
    const count = countOf(input, entry);
    if (entry.role === "sidecar") {
      const pending = count.kind === "running" ? !count.started : count.kind !== "stopped";
      if (pending && !input.initialized) progress = "pending";
    } else if (count.kind !== "stopped") {
      progress = "pending";
    } else if (count.exitCode !== 0 && !count.restartable) {
      return "failed";
    }
  }
  return progress;
}

/** Once no container runs or waits: over, or about to start again. */
function stoppedPhase(input: PhaseInput, counts: readonly Count[]): PodPhase {
  const exits = counts.filter((count) => count.kind === "stopped");
  if (!input.terminal && exits.some(({ restartable }) => restartable)) return "Running";
  return exits.every(({ exitCode }) => exitCode === 0) ? "Succeeded" : "Failed";
}

/** The pod's phase from the states of its containers. Pure; the rules are those of kubelet 1.36. */
export function podPhase(input: PhaseInput): PodPhase {
  const progress = initProgress(input);
  if (progress === "failed") return "Failed";
  const counts = regularContainers(input.pod).map((entry) => countOf(input, entry));
  const kinds = counts.map(({ kind }) => kind);
  const sidecarRuns = initContainers(input.pod).some(
    (entry) => entry.role === "sidecar" && countOf(input, entry).kind === "running",
  );
  if (progress === "pending" || kinds.includes("waiting") || kinds.includes("unknown")) {
    return "Pending";
  }
  if (kinds.includes("running")) return "Running";
  if (sidecarRuns && !input.terminal) return "Running";
  return kinds.length === 0 ? "Pending" : stoppedPhase(input, counts);
}
