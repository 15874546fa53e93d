import type {
  EventSummary,
  NodeSnapshot,
  PodSummary,
  ServiceSummary,
} from "../../../src/agent/local/types.ts";

const minute = 60_000;

function ago(now: number, minutes: number): string {
  return new Date(now - minutes * minute).toISOString();
}

export function pod(changes: Partial<PodSummary> & { readonly name: string }): PodSummary {
  return {
    uid: `uid-${changes.namespace ?? "default"}-${changes.name}`,
    namespace: "default",
    phase: "Running",
    ready: true,
    status: "Running",
    why: "",
    readyContainers: 1,
    containers: 1,
    restarts: 0,
    created: ago(Date.parse("2026-03-01T12:00:00Z"), 90),
    ip: "10.244.0.7",
    cpu: 0.012,
    memory: 24 * 1024 ** 2,
    ...changes,
  };
}

export function service(
  changes: Partial<ServiceSummary> & { readonly name: string },
): ServiceSummary {
  return {
    namespace: "default",
    type: "ClusterIP",
    clusterIPs: ["10.96.0.20"],
    ports: ["80/TCP"],
    ready: 1,
    total: 1,
    localPods: [],
    ...changes,
  };
}

export function event(changes: Partial<EventSummary>): EventSummary {
  return {
    time: "2026-03-01T11:58:00Z",
    type: "Normal",
    reason: "Started",
    object: "Pod default/web",
    message: "Started container web",
    count: 1,
    ...changes,
  };
}

/** What an agent of a small node tells at `now`. */
export function snapshot(now: number, changes: Partial<NodeSnapshot> = {}): NodeSnapshot {
  const condition = (type: string, status: string): NodeSnapshot["node"]["conditions"][number] => ({
    type,
    status,
    reason: `Kubelet${type}`,
    message: "",
    since: ago(now, 4000),
  });
  return {
    schema: 1,
    time: new Date(now).toISOString(),
    agent: {
      version: "0.1.0",
      kubernetesVersion: "v1.36.0",
      mode: "up",
      pid: 812,
      started: ago(now, 3000),
      rssBytes: 92 * 1024 ** 2,
      stateDir: "/var/lib/remora",
    },
    node: {
      name: "node-a",
      ready: true,
      reason: "KubeletReady",
      message: "kubelet is posting ready status",
      conditions: [
        condition("Ready", "True"),
        condition("MemoryPressure", "False"),
        condition("DiskPressure", "False"),
        condition("PIDPressure", "False"),
      ],
      addresses: [
        { type: "InternalIP", address: "192.168.1.20" },
        { type: "InternalIP", address: "fd00::20" },
        { type: "Hostname", address: "node-a" },
      ],
      runtime: "docker://29.7.0",
      apiServer: {
        url: "https://127.0.0.1:6443",
        reachable: true,
        lastHeartbeat: ago(now, 0.1),
      },
      allocatable: { cpu: 4, memory: 8 * 1024 ** 3, pods: 110 },
      requested: { cpu: 1.35, memory: 1.5 * 1024 ** 3 },
    },
    pods: [pod({ name: "web", created: ago(now, 90) })],
    pulls: [],
    services: {
      mode: "nftables",
      services: 1,
      endpoints: 1,
      lastSync: ago(now, 2),
      lastSyncSeconds: 0.004,
      list: [service({ name: "web", localPods: ["default/web"] })],
    },
    usage: {
      cpu: 0.42,
      cpuCapacity: 4,
      memory: 2.1 * 1024 ** 3,
      memoryCapacity: 8 * 1024 ** 3,
      disk: { used: 21 * 1024 ** 3, capacity: 80 * 1024 ** 3 },
      network: { received: 125_000, sent: 48_000 },
    },
    events: [event({})],
    ...changes,
  };
}
