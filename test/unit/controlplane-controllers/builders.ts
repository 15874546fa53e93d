import type { Stored } from "../../../src/api/object.ts";
import type {
  Node,
  NodeCondition,
  Pod,
  PodSpec,
  PodStatus,
  Service,
  ServiceSpec,
} from "../../../src/api/types.gen.ts";
import type { Clock } from "../../../src/lib/clock.ts";

export const now = Date.parse("2026-01-01T12:00:00Z");

/** API time `seconds` before `now`. */
export function ago(seconds: number): string {
  return new Date(now - seconds * 1000).toISOString().replace(".000Z", "Z");
}

let serial = 0;

export interface PodParts {
  readonly name?: string;
  readonly namespace?: string;
  readonly uid?: string;
  readonly labels?: Record<string, string>;
  readonly annotations?: Record<string, string>;
  readonly owner?: string;
  readonly deleting?: boolean;
  readonly createdAgo?: number;
  readonly ready?: boolean;
  readonly readyAgo?: number;
  readonly ip?: string;
  readonly phase?: PodStatus["phase"];
  readonly restarts?: number;
  readonly spec?: Partial<PodSpec>;
}

export function pod(parts: PodParts = {}): Stored<Pod> {
  serial += 1;
  const name = parts.name ?? `pod-${serial}`;
  const { phase } = parts;
  return {
    metadata: {
      name,
      namespace: parts.namespace ?? "default",
      uid: parts.uid ?? `uid-${name}`,
      resourceVersion: "1",
      creationTimestamp: ago(parts.createdAgo ?? 100),
      labels: parts.labels ?? { app: "web" },
      annotations: parts.annotations,
      deletionTimestamp: parts.deleting === true ? ago(0) : undefined,
      ownerReferences:
        parts.owner === undefined
          ? undefined
          : [
              {
                apiVersion: "v1",
                kind: "ReplicationController",
                name: "web",
                uid: parts.owner,
                controller: true,
              },
            ],
    },
    spec: { containers: [{ name: "c", image: "i" }], ...parts.spec },
    status: {
      phase: phase ?? "Running",
      ...(parts.ip === undefined ? {} : { podIP: parts.ip, podIPs: [{ ip: parts.ip }] }),
      conditions: [
        {
          type: "Ready",
          status: parts.ready === true ? "True" : "False",
          lastTransitionTime: ago(parts.readyAgo ?? 50),
        },
      ],
      containerStatuses: [
        {
          name: "c",
          image: "i",
          imageID: "",
          ready: parts.ready === true,
          restartCount: parts.restarts ?? 0,
        },
      ],
    },
  };
}

export function service(spec: Partial<ServiceSpec> = {}): Stored<Service> {
  return {
    metadata: {
      name: "web",
      namespace: "default",
      uid: "service-uid",
      resourceVersion: "1",
      labels: { team: "a" },
      creationTimestamp: ago(1000),
    },
    spec: {
      clusterIP: "10.96.0.7",
      ipFamilies: ["IPv4"],
      selector: { app: "web" },
      ports: [{ name: "http", port: 80, targetPort: 8080, protocol: "TCP" }],
      ...spec,
    },
  };
}

export interface NodeParts {
  readonly name?: string;
  readonly labels?: Record<string, string>;
  readonly conditions?: NodeCondition[];
  readonly createdAgo?: number;
  readonly spec?: Stored<Node>["spec"];
  readonly allocatable?: Record<string, string>;
  readonly images?: { names: string[]; sizeBytes: number }[];
}

export function node(parts: NodeParts = {}): Stored<Node> {
  return {
    metadata: {
      name: parts.name ?? "n1",
      uid: `uid-${parts.name ?? "n1"}`,
      resourceVersion: "1",
      creationTimestamp: ago(parts.createdAgo ?? 1000),
      labels: parts.labels,
    },
    spec: parts.spec,
    status: {
      conditions: parts.conditions ?? [{ type: "Ready", status: "True", reason: "KubeletReady" }],
      allocatable: parts.allocatable ?? { cpu: "4", memory: "8Gi", pods: "110" },
      images: parts.images,
    },
  };
}

/** A clock that moves only when told; sleepers wake in order of their time. */
export class ManualClock implements Clock {
  #now: number;
  readonly #sleepers = new Set<{ readonly due: number; readonly wake: () => void }>();

  constructor(start = now) {
    this.#now = start;
  }

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#now;
  }

  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const sleeper = { due: this.#now + ms, wake: resolve };
    const abort = (): void => reject(new DOMException("aborted", "AbortError"));
    this.#sleepers.add(sleeper);
    signal.addEventListener("abort", abort, { once: true });
    try {
      await promise;
    } finally {
      this.#sleepers.delete(sleeper);
      signal.removeEventListener("abort", abort);
    }
  }

  advance(ms: number): void {
    this.#now += ms;
    for (const sleeper of [...this.#sleepers].toSorted((a, b) => a.due - b.due))
      if (sleeper.due <= this.#now) sleeper.wake();
  }
}
