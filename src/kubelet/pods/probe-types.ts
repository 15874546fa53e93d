import type { Probe } from "../../api/types.gen.ts";
import type { PodContainer } from "../spec/containers.ts";
import type { AssignedPod } from "../types.ts";

export type ProbeKind = "startup" | "readiness" | "liveness";

/** One running container to probe. */
export interface ProbeTarget {
  readonly pod: AssignedPod;
  readonly entry: PodContainer;
  readonly containerID: string;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly podIP: string;
  /** The API knows this very container as started: what the startup probe has proved needs no second proof. */
  readonly started: boolean;
}

/** What one probe found. `error`: it could not be made, so it says nothing about the container. */
export type ProbeOutcome =
  | { readonly kind: "success" }
  /** A success that somebody should look at. */
  | { readonly kind: "warning"; readonly output: string }
  | { readonly kind: "failure"; readonly output: string }
  | { readonly kind: "error"; readonly message: string };

/** The container's probe of this kind. */
export function probeOf({ container }: PodContainer, kind: ProbeKind): Probe | undefined {
  switch (kind) {
    case "startup":
      return container.startupProbe;
    case "readiness":
      return container.readinessProbe;
    case "liveness":
      return container.livenessProbe;
  }
}
