import type { PodStatus } from "../../api/types.gen.ts";
import type { ContainerLimits, ContainerRecord, SandboxRecord } from "../../runtime/types.ts";
import type { PodContainer } from "../spec/containers.ts";
import type { ObservedPod } from "../status/observed.ts";
import type { AssignedPod } from "../types.ts";

/** Why a running container is stopped although its pod goes on. */
export type KillCause =
  | "definition"
  | "liveness"
  | "startup"
  | "resize"
  | "unknown"
  | "sandbox"
  | "stray"
  | "restartAll";

/** One thing to do for a pod, as data. The executor does them in order. */
export type PodAction =
  /** Nothing will run any more: stop what does and publish the terminal phase. */
  | { readonly kind: "endPod" }
  /** Also of one that the runtime does not hold any more: then its network is what is left. */
  | { readonly kind: "stopSandbox"; readonly sandboxID: string }
  | { readonly kind: "createSandbox"; readonly attempt: number; readonly recreated: boolean }
  | { readonly kind: "setUpNetwork"; readonly sandbox: SandboxRecord }
  | {
      readonly kind: "killContainer";
      readonly record: ContainerRecord;
      readonly cause: KillCause;
      readonly message: string;
    }
  | { readonly kind: "removeContainer"; readonly record: ContainerRecord }
  | { readonly kind: "removeSandbox"; readonly sandbox: SandboxRecord }
  | {
      readonly kind: "startContainer";
      readonly entry: PodContainer;
      readonly sandbox: SandboxRecord;
      readonly attempt: number;
      /** To note in the new container: the wait after its run. */
      readonly backoffMs: number;
    }
  /** Other limits for a running container, without a restart. */
  | {
      readonly kind: "updateContainer";
      readonly entry: PodContainer;
      readonly record: ContainerRecord;
      readonly limits: ContainerLimits;
    }
  /** Waits out the crash loop; milliseconds since the epoch. */
  | { readonly kind: "backOff"; readonly entry: PodContainer; readonly dueAt: number };

export interface ActionsInput {
  readonly pod: AssignedPod;
  readonly observed: ObservedPod;
  /** The status as computed from the same observation: the floor of restart counts. */
  readonly status: PodStatus;
}
