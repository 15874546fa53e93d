import type { AgentSummary, NodeSnapshot, PodSummary } from "../../src/agent/local/types.ts";

export const now = Date.parse("2026-03-01T12:00:00Z");

/** Of a node that is Ready and runs nothing. */
export function emptySnapshot(
  agent: Partial<AgentSummary> = {},
  more: Partial<NodeSnapshot> = {},
): NodeSnapshot {
  return {
    schema: 1,
    time: new Date(now).toISOString(),
    agent: {
      version: "0.1.0",
      kubernetesVersion: "v1.36.2",
      mode: "up",
      pid: 1234,
      started: "2026-03-01T09:00:00.000Z",
      rssBytes: 130 * 1024 * 1024,
      stateDir: "/var/lib/remora",
      ...agent,
    },
    node: {
      name: "host-1",
      ready: true,
      reason: "KubeletReady",
      message: "kubelet is posting ready status",
      conditions: [
        {
          type: "Ready",
          status: "True",
          reason: "KubeletReady",
          message: "kubelet is posting ready status",
          since: "2026-03-01T09:00:10Z",
        },
      ],
      addresses: [{ type: "InternalIP", address: "192.0.2.10" }],
      runtime: "docker://29.7.0",
      apiServer: {
        url: "https://127.0.0.1:6443",
        reachable: true,
        lastHeartbeat: "2026-03-01T11:59:56.000Z",
      },
      allocatable: { cpu: 2, memory: 4 * 1024 ** 3, pods: 110 },
      requested: { cpu: 0.5, memory: 256 * 1024 ** 2 },
    },
    pods: [],
    pulls: [],
    services: {
      mode: "nftables",
      services: 1,
      endpoints: 1,
      lastSync: "2026-03-01T11:58:00.000Z",
      lastSyncSeconds: 0.004,
      list: [
        {
          namespace: "default",
          name: "kubernetes",
          type: "ClusterIP",
          clusterIPs: ["10.96.0.1"],
          ports: ["443/TCP"],
          ready: 1,
          total: 1,
          localPods: [],
        },
      ],
    },
    usage: {
      cpu: 0.7,
      cpuCapacity: 2,
      memory: 2 * 1024 ** 3,
      memoryCapacity: 4 * 1024 ** 3,
      disk: { used: 30 * 1024 ** 3, capacity: 40 * 1024 ** 3 },
      network: { received: 12_000, sent: 3000 },
    },
    events: [],
    ...more,
  };
}

/** A pod that runs and is Ready. */
export function podOf(more: Partial<PodSummary> = {}): PodSummary {
  return {
    uid: "u1",
    namespace: "default",
    name: "web-1",
    phase: "Running",
    ready: true,
    status: "Running",
    why: "",
    readyContainers: 1,
    containers: 1,
    restarts: 0,
    created: "2026-03-01T10:00:00Z",
    ip: "10.244.0.5",
    cpu: 0.05,
    memory: 20 * 1024 ** 2,
    ...more,
  };
}
