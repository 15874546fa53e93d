import { eventually, type Machine, type MachineProcess } from "./machine.ts";

/** What the tests look at in a Pod. */
export interface PodItem {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly deletionTimestamp?: string;
  };
  readonly spec: { readonly nodeName?: string };
  readonly status: {
    readonly phase: string;
    readonly podIP?: string;
    readonly containerStatuses?: readonly {
      readonly ready: boolean;
      readonly restartCount: number;
      readonly containerID?: string;
    }[];
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

interface NodeItem {
  readonly spec: {
    readonly podCIDR?: string;
    readonly taints?: readonly { readonly key: string; readonly effect: string }[];
  };
  readonly status: {
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

/** Whether the pod is wanted and answers. */
export function isReady(pod: PodItem): boolean {
  return (
    pod.metadata.deletionTimestamp === undefined &&
    pod.status.conditions?.some(({ type, status }) => type === "Ready" && status === "True") ===
      true
  );
}

/** The cluster as an administrator on the machine of its control plane sees it. */
export class Cluster {
  readonly control: Machine;
  /** Whose output is shown when something does not happen. */
  readonly processes: MachineProcess[] = [];

  constructor(control: Machine) {
    this.control = control;
  }

  async get<T>(...what: readonly string[]): Promise<T> {
    const { stdout } = await this.control.kubectl(["get", ...what, "-o", "json"]);
    return JSON.parse(stdout) as T;
  }

  async pods(): Promise<readonly PodItem[]> {
    return (await this.get<{ items: readonly PodItem[] }>("pods")).items;
  }

  async node(name: string): Promise<NodeItem> {
    return this.get<NodeItem>("node", name);
  }

  /** Status of the node's Ready condition. */
  async ready(name: string): Promise<string> {
    const { status } = await this.node(name);
    return status.conditions?.find(({ type }) => type === "Ready")?.status ?? "missing";
  }

  async create(...objects: readonly object[]): Promise<void> {
    const list = { apiVersion: "v1", kind: "List", items: objects };
    await this.control.kubectl(["create", "-f", "-"], { stdin: JSON.stringify(list) });
  }

  /** Waits for `check` to be true; else fails with `what` and a description of everything. Returns the milliseconds. */
  async until(what: string, check: () => Promise<boolean>, timeoutMs = 60_000): Promise<number> {
    const started = performance.now();
    await eventually(async () => ((await check()) ? true : undefined), {
      timeoutMs,
      describe: async () => {
        const state = await this.control.kubectl(["describe", "nodes,pods,endpointslices"], {
          allowFailure: true,
        });
        const outputs = this.processes.map((process) => process.output().slice(-4000));
        return [what, state.stdout, ...outputs].join("\n");
      },
    });
    return Math.round(performance.now() - started);
  }
}

interface Listed {
  readonly Id: string;
  readonly State: string;
  readonly Labels: Readonly<Record<string, string>>;
}

/** A container of a pod, as the engine of its machine tells it. */
export interface PodContainer {
  readonly id: string;
  readonly machine: Machine;
  readonly podUID: string;
  readonly podName: string;
  /** `POD` is the sandbox. */
  readonly container: string;
  readonly running: boolean;
}

/** All containers of pods on the machine, from its engine. */
export async function podContainers(machine: Machine): Promise<readonly PodContainer[]> {
  const filters = encodeURIComponent(JSON.stringify({ label: ["io.kubernetes.pod.uid"] }));
  const all = await machine.docker("GET", `/containers/json?all=1&filters=${filters}`);
  return (all as readonly Listed[]).map(({ Id, State, Labels }) => ({
    id: Id,
    machine,
    podUID: Labels["io.kubernetes.pod.uid"] ?? "",
    podName: Labels["io.kubernetes.pod.name"] ?? "",
    container: Labels["io.kubernetes.container.name"] ?? "POD",
    running: State === "running",
  }));
}

/**
 * Looks at the engines of all machines over and over, and keeps what must never be: a pod on two machines, a name that
 * two pods run under, two running containers of one name in one pod.
 */
export class DoubleWatch implements AsyncDisposable {
  readonly #machines: readonly Machine[];
  readonly #stop = new AbortController();
  readonly #placeOf = new Map<string, string>();
  readonly #uidOf = new Map<string, string>();
  readonly #found = new Set<string>();
  readonly #running: Promise<void>;
  #looks = 0;

  constructor(machines: readonly Machine[]) {
    this.#machines = machines;
    this.#running = this.#run();
  }

  /** Sentences, one per thing found. */
  get doubles(): readonly string[] {
    return [...this.#found];
  }

  /** How often all engines were asked. */
  get looks(): number {
    return this.#looks;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await Promise.all(this.#machines.map((machine) => this.#look(machine)));
      this.#looks += 1;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }

  async #look(machine: Machine): Promise<void> {
    let containers: readonly PodContainer[];
    try {
      containers = await podContainers(machine);
    } catch {
      // Powered off.
      return;
    }
    const seen = new Set<string>();
    for (const { container, podName, podUID, running } of containers) {
      if (!running) continue;
      const key = `${container} of ${podName} (${podUID})`;
      if (seen.has(key)) this.#found.add(`${key} runs twice on ${machine.name}`);
      seen.add(key);
      const place = this.#placeOf.get(podUID) ?? machine.name;
      this.#placeOf.set(podUID, place);
      if (place !== machine.name) this.#found.add(`${key} ran on ${place} and on ${machine.name}`);
      const uid = this.#uidOf.get(podName) ?? podUID;
      this.#uidOf.set(podName, uid);
      if (uid !== podUID) this.#found.add(`${podName} ran as ${uid} and as ${podUID}`);
    }
  }
}
