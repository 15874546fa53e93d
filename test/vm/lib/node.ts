import { createHttpClient, type HttpClient } from "../../../src/api/http-client.ts";
import { parseKubeconfig } from "../../../src/api/kubeconfig.ts";
import type { Pod } from "../../../src/api/types.gen.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { eventually } from "../../e2e/lib/machine.ts";
import type { Manifest } from "../check.ts";
import type { RealMachine } from "./machine.ts";
import { busyboxImage, previousPackageFile } from "./payload.ts";
import { startMachine } from "./start-machine.ts";
import { traces, type Traces } from "./traces.ts";

const apiPort = 6443;
export const unit = "remora-up.service";
const adminKubeconfig = "/var/lib/remora/control-plane/admin.conf";

/** Emulated and beside other work: what takes a second elsewhere may take a minute here. */
const patienceMs = 10 * 60_000;

const collections: Readonly<Record<string, (namespace: string) => string>> = {
  Namespace: () => "/api/v1/namespaces",
  Pod: (namespace) => `/api/v1/namespaces/${namespace}/pods`,
  Service: (namespace) => `/api/v1/namespaces/${namespace}/services`,
  Secret: (namespace) => `/api/v1/namespaces/${namespace}/secrets`,
  PersistentVolumeClaim: (namespace) => `/api/v1/namespaces/${namespace}/persistentvolumeclaims`,
  Deployment: (namespace) => `/apis/apps/v1/namespaces/${namespace}/deployments`,
};

function collection(kind: string, namespace = "default"): string {
  const path = collections[kind]?.(namespace);
  if (path === undefined) throw new Error(`where do objects of kind ${kind} go?`);
  return path;
}

/** How the package was installed and its service started. */
export interface Installation {
  /** What dpkg printed. */
  readonly output: string;
  /** Units of ours that ran, or were to run at the next boot, before anybody asked for it. */
  readonly unasked: string;
  /** Whether the API said that the node is ready in the moment in which systemd said that the service had started. */
  readonly readyAtOnce: boolean;
}

/** A machine on which the package is installed and images are loaded, and its API as an administrator sees it. */
export class Node implements AsyncDisposable {
  readonly machine: RealMachine;
  /** Before the package was installed. */
  readonly untouched: Traces;
  /** What was measured on the way, for whoever wants to know. */
  readonly figures: Record<string, unknown> = {};
  #installation: Installation = { output: "", unasked: "", readyAtOnce: false };
  #client: HttpClient | undefined;

  private constructor(machine: RealMachine, untouched: Traces) {
    this.machine = machine;
    this.untouched = untouched;
  }

  /** Boots the machine. @throws {NoMirrorError} no Debian mirror answers. */
  static async start(): Promise<Node> {
    const machine = await startMachine([apiPort]);
    try {
      await machine.sh("systemctl start docker.service");
      await machine.sh(`docker import -c 'ENV PATH=/bin:/usr/bin' ${busyboxImage} busybox:1.36`);
      return new Node(machine, await traces(machine));
    } catch (error) {
      await machine[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client?.close();
    await this.machine[Symbol.asyncDispose]();
  }

  note(name: string, figure: unknown): void {
    this.figures[name] = figure;
  }

  get installation(): Installation {
    return this.#installation;
  }

  /** Installs the package of the previous version as a user does, without a network. */
  async install(): Promise<void> {
    const output = await this.dpkg("-i", previousPackageFile);
    const unasked = await this.machine.sh(`
      systemctl list-units --plain --no-legend 'remora*'
      systemctl list-unit-files --state=enabled --plain --no-legend 'remora*' || true`);
    this.#installation = { ...this.#installation, output, unasked };
  }

  async dpkg(...args: readonly string[]): Promise<string> {
    const script = 'DEBIAN_FRONTEND=noninteractive exec dpkg "$@" 2>&1';
    const result = await this.machine.exec(["sh", "-c", script, "dpkg", ...args], {
      timeoutMs: patienceMs,
    });
    return result.stdout;
  }

  /** Has systemd run `remora up`, now and after each boot; it says when the node is ready. */
  async up(): Promise<void> {
    await this.machine.sh(`systemctl enable --now ${unit}`, { timeoutMs: patienceMs });
    await this.connect();
    this.#installation = { ...this.#installation, readyAtOnce: await this.#isReady() };
    await this.ready();
  }

  /** Reads the administrator's credentials, once more after they may have changed. */
  async connect(): Promise<void> {
    await this.#client?.close();
    const text = await this.machine.sh(`cat ${adminKubeconfig}`);
    const kubeconfig = await parseKubeconfig(text, adminKubeconfig);
    const server = `https://${this.machine.endpoint(apiPort)}`;
    this.#client = createHttpClient({
      kubeconfig: { ...kubeconfig, cluster: { ...kubeconfig.cluster, server } },
      userAgent: "remora-test",
      clock: systemClock,
      logger: silentLogger,
    });
  }

  /** How often systemd has started the agent again by itself. */
  async restarts(): Promise<number> {
    return Number(await this.machine.sh(`systemctl show -P NRestarts ${unit}`));
  }

  /** Sends the agent a signal, and waits until systemd has started it again and the API answers. */
  async signal(name: "KILL" | "STOP"): Promise<void> {
    const before = await this.restarts();
    await this.machine.sh(`systemctl kill --kill-whom=main --signal=${name} ${unit}`);
    await this.until("systemd has started it again", async () =>
      (await this.restarts()) > before ? true : undefined,
    );
    await this.ready();
  }

  async get<T>(path: string): Promise<T> {
    return this.#request<T>("GET", path);
  }

  async create(object: Manifest, namespace?: string): Promise<void> {
    await this.#request("POST", collection(object.kind, namespace), object);
  }

  async pod(name: string): Promise<Pod> {
    return this.get<Pod>(`${collection("Pod")}/${name}`);
  }

  async pods(namespace?: string): Promise<readonly Pod[]> {
    const path = collection("Pod", namespace);
    return (await this.get<{ readonly items: readonly Pod[] }>(path)).items;
  }

  /** Asks for its deletion, and does not wait for it. */
  async delete(kind: string, name: string): Promise<void> {
    await this.#request("DELETE", `${collection(kind)}/${name}`);
  }

  async deletePods(): Promise<void> {
    await this.#request("DELETE", collection("Pod"));
    await this.until("all pods are gone", async () =>
      (await this.pods()).length === 0 ? true : undefined,
    );
  }

  async #isReady(): Promise<boolean> {
    const { items } = await this.get<{ readonly items: readonly Pod[] }>("/api/v1/nodes");
    return isTrue(items[0], "Ready");
  }

  /** Waits until the API says that the node is ready. */
  async ready(): Promise<void> {
    await this.until("the node is ready", async () => ((await this.#isReady()) ? true : undefined));
  }

  /** The pod once it is ready. */
  async podReady(name: string): Promise<Pod> {
    return this.until(`pod ${name} is ready`, async () => {
      const pod = await this.pod(name);
      return isTrue(pod, "Ready") ? pod : undefined;
    });
  }

  /** All pods of a namespace once they are ready, at least so many of them. */
  async allReady(namespace: string, least: number): Promise<readonly Pod[]> {
    return this.until(`${least} pods of ${namespace} are ready`, async () => {
      const pods = await this.pods(namespace);
      return pods.length >= least && pods.every((pod) => isTrue(pod, "Ready")) ? pods : undefined;
    });
  }

  /** The pod once all of its containers have started. */
  async started(name: string): Promise<Pod> {
    return this.until(`pod ${name} has started`, async () => {
      const pod = await this.pod(name);
      const all = pod.status?.containerStatuses ?? [];
      const waiting = all.some(({ state }) => state?.waiting !== undefined);
      return all.length > 0 && !waiting ? pod : undefined;
    });
  }

  /** The pod once it has ended, well or not. */
  async ended(name: string): Promise<Pod> {
    return this.until(`pod ${name} has ended`, async () => {
      const pod = await this.pod(name);
      return ["Succeeded", "Failed"].includes(pod.status?.phase ?? "") ? pod : undefined;
    });
  }

  /** What a container left as its last words; waits for its end, which must be a good one. */
  async words(name: string, container: string): Promise<string> {
    return this.until(`${container} of pod ${name} has ended well`, async () => {
      const { status } = await this.pod(name);
      const found = status?.containerStatuses?.find((each) => each.name === container);
      const end = found?.state?.terminated;
      return end?.exitCode === 0 ? (end.message ?? "").trim() : undefined;
    });
  }

  /** Polls until `look` returns something; a failure shows the state of pods, the agent's last lines and the console. */
  async until<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
    return eventually(look, {
      timeoutMs: patienceMs,
      describe: async () => [what, await this.#story(), this.machine.describe()].join("\n"),
    });
  }

  async #story(): Promise<string> {
    const script = `systemctl status --no-pager -n 0 ${unit}; journalctl -u ${unit} -o cat -n 40
      docker ps -a --format '{{.Names}} {{.Status}}'`;
    const { stdout } = await this.machine.exec(["sh", "-c", script], { allowFailure: true });
    const states = await this.pods().catch(() => []);
    const lines = states.map(
      ({ metadata, status }) => `${metadata?.name} ${JSON.stringify(status)}`,
    );
    return [stdout, ...lines].join("\n");
  }

  async #request<T>(method: "GET" | "POST" | "DELETE", path: string, body?: object): Promise<T> {
    if (this.#client === undefined) throw new Error("Remora is not up");
    const signal = AbortSignal.timeout(60_000);
    const given = body === undefined ? {} : { body };
    return (await this.#client.request({ method, path, ...given, signal })) as T;
  }
}

function isTrue(object: Pod | undefined, type: string): boolean {
  return (
    object?.status?.conditions?.some((each) => each.type === type && each.status === "True") ??
    false
  );
}
