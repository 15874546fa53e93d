import { defineCheck, type Finding, judged } from "../check.ts";
import { type Listener, listListeners, ownersOf, type ProcessFacts } from "../processes.ts";

interface WantedPort {
  readonly port: number;
  readonly purpose: string;
  readonly protocol: "tcp" | "udp";
  readonly mode: "both" | "up";
}

const ports: readonly WantedPort[] = [
  { port: 10_250, purpose: "kubelet API", protocol: "tcp", mode: "both" },
  { port: 10_248, purpose: "kubelet health", protocol: "tcp", mode: "both" },
  { port: 10_249, purpose: "proxy metrics", protocol: "tcp", mode: "both" },
  { port: 10_256, purpose: "proxy health", protocol: "tcp", mode: "both" },
  { port: 6443, purpose: "API server", protocol: "tcp", mode: "up" },
];

export interface PortFacts {
  readonly wanted: readonly (WantedPort & {
    readonly listeners: readonly (Listener & { readonly owner: ProcessFacts | undefined })[];
  })[];
  /** Of the agent; undefined when none runs. */
  readonly pid: number | undefined;
  readonly mode: "up" | "run";
}

/** Name servers on all addresses keep ours from its own. */
const dnsWanted = { port: 53, purpose: "cluster DNS", mode: "both" } as const;

function ownerText(owner: ProcessFacts | undefined): string {
  return owner === undefined ? "another program" : `${owner.name} (pid ${owner.pid})`;
}

const services = new Set(["kubelet", "kube-proxy", "k3s", "k0s", "dnsmasq", "named", "unbound"]);

function stopping(owner: ProcessFacts | undefined, port: number): string {
  if (owner === undefined) return `ss -ltnp 'sport = :${port}' # names it`;
  const unit = services.has(owner.name) ? owner.name : undefined;
  return unit === undefined
    ? `kill ${owner.pid} # or its unit: systemctl status ${owner.pid}`
    : `systemctl disable --now ${unit}`;
}

export const portsCheck = defineCheck({
  id: "ports",
  title: "Ports",
  group: "machine",
  looks: "who listens on the ports of the agent: 10250, 10248, 10249, 10256, 53, and 6443 of `up`",
  reference: "docs/host-ports.md",
  problems: {
    "port-taken": {
      level: "error",
      means: "Another program listens on a port of the agent.",
      cause:
        "Most often a kubelet, a kube-proxy or another distribution of Kubernetes that was not stopped: the agent does not start.",
      remedy: "ss -ltnp 'sport = :10250' # names it; systemctl disable --now kubelet",
    },
    "port-dns-taken": {
      level: "warning",
      means: "Another name server listens on port 53 of all addresses.",
      cause:
        "Cluster DNS of this node answers on addresses of its own beside it, which such a server may have taken before: pods then ask the wrong one.",
      remedy:
        "dnsmasq: bind-dynamic and except-interface=remora0; others: listen on 127.0.0.1 and the machine's own address only",
    },
    "port-not-answered": {
      level: "error",
      means: "The agent runs and does not listen on one of its ports.",
      cause: "It is not ready yet, or the port was taken when it started: its log says which.",
      remedy: "journalctl -u 'remora*' -n 50 --no-pager",
    },
  },
  collect: async (machine): Promise<PortFacts> => {
    const { mode, pid } = machine.site;
    const wanted: readonly WantedPort[] = [
      ...ports.filter((port) => port.mode === "both" || mode === "up"),
      { ...dnsWanted, protocol: "udp" },
      { ...dnsWanted, protocol: "tcp" },
    ];
    const tables = {
      tcp: await listListeners(machine, "tcp"),
      udp: await listListeners(machine, "udp"),
    };
    const found = wanted.map((port) => ({
      ...port,
      listeners: tables[port.protocol].filter((one) => one.port === port.port),
    }));
    const inodes = new Set(found.flatMap(({ listeners }) => listeners.map(({ inode }) => inode)));
    const owners = await ownersOf(machine, inodes);
    return {
      wanted: found.map((port) => ({
        ...port,
        listeners: port.listeners.map((one) => ({ ...one, owner: owners.get(one.inode) })),
      })),
      mode,
      pid,
    };
  },
  judge: ({ pid, wanted }) => {
    const findings: Finding<"port-taken" | "port-dns-taken" | "port-not-answered">[] = [];
    for (const { listeners, port, protocol, purpose } of wanted) {
      const others = listeners.filter(
        ({ owner }) => owner === undefined || (owner.pid !== pid && owner.name !== "systemd"),
      );
      const [other] = port === 53 ? others.filter(({ address }) => address === "") : others;
      if (other !== undefined) {
        findings.push({
          problem: port === 53 ? "port-dns-taken" : "port-taken",
          text: `port ${port}/${protocol} (${purpose}) is taken by ${ownerText(other.owner)}`,
          remedy: stopping(other.owner, port),
        });
      } else if (pid !== undefined && listeners.length === 0 && port === 10_250) {
        findings.push({
          problem: "port-not-answered",
          text: `nothing listens on port ${port} (${purpose}) although the agent runs (pid ${pid})`,
        });
      }
    }
    return judged(pid === undefined ? "all of them are free" : "they are the agent's", findings);
  },
});
