import type { Container, PodSpec } from "../../../src/api/types.gen.ts";
import { specHash } from "../../../src/kubelet/spec/container-config.ts";
import type { ObservedPod } from "../../../src/kubelet/status/observed.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import type { ContainerRecord, ContainerState, SandboxRecord } from "../../../src/runtime/types.ts";

/** A fixed moment, milliseconds since the epoch. */
export const now = Date.parse("2026-01-01T00:10:00Z");

export function container(name: string, more: Partial<Container> = {}): Container {
  return { name, image: "app:1", ...more };
}

export function pod(spec: Partial<PodSpec> = {}, more: Partial<AssignedPod> = {}): AssignedPod {
  return {
    metadata: { name: "web", namespace: "ns", uid: "uid-1", resourceVersion: "1", generation: 3 },
    spec: { nodeName: "worker", containers: [container("web")], ...spec },
    ...more,
  };
}

export function sandbox(attempt = 0, ready = true): SandboxRecord {
  return {
    id: `sandbox-${attempt}`,
    metadata: { name: "web", namespace: "ns", uid: "uid-1", attempt },
    ready,
    pid: ready ? 1 : undefined,
    network: "pod",
    createdAt: now,
    labels: {},
    record: "{}",
  };
}

export const running: ContainerState = {
  kind: "running",
  createdAt: now - 1000,
  startedAt: now - 1000,
  pid: 2,
};
export const created: ContainerState = { kind: "created", createdAt: now };
export const unknown: ContainerState = { kind: "unknown", createdAt: now };

export function exited(exitCode: number, agoMs = 1000, ranMs = 1000): ContainerState {
  const finishedAt = now - agoMs;
  const startedAt = finishedAt - ranMs;
  return {
    kind: "exited",
    createdAt: startedAt,
    startedAt,
    finishedAt,
    exitCode,
    oomKilled: false,
    error: "",
  };
}

export function record(
  name: string,
  state: ContainerState,
  more: Partial<ContainerRecord> & { readonly backoffMs?: number } = {},
): ContainerRecord {
  const { backoffMs = 0, ...rest } = more;
  const attempt = rest.attempt ?? 0;
  return {
    id: `${name}-${attempt}`,
    sandboxID: "sandbox-0",
    podUID: "uid-1",
    podName: "web",
    podNamespace: "ns",
    name,
    attempt,
    state,
    image: "app:1",
    imageID: "sha256:1",
    specHash: specHash(container(name)),
    labels: {},
    record: JSON.stringify({ backoffMs }),
    ...rest,
  };
}

export function observed(
  containers: readonly ContainerRecord[],
  more: Partial<ObservedPod> & { readonly sandboxes?: readonly SandboxRecord[] } = {},
): ObservedPod {
  const { sandboxes = [sandbox()], ...rest } = more;
  return {
    record: { uid: "uid-1", name: "web", namespace: "ns", sandboxes, containers },
    // An older sandbox has given its address back.
    addresses: (id) => (id === sandboxes[0]?.id ? ["10.244.0.2"] : undefined),
    hostIPs: ["192.0.2.10"],
    probes: {
      startup: () => undefined,
      readiness: () => undefined,
      liveness: () => undefined,
    },
    starting: new Set(),
    now,
    ...rest,
  };
}
