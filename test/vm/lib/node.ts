import { createHttpClient, type HttpClient } from "../../../src/api/http-client.ts";
import { parseKubeconfig } from "../../../src/api/kubeconfig.ts";
import type { Pod } from "../../../src/api/types.gen.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { eventually } from "../../e2e/lib/machine.ts";
import type { Manifest } from "../check.ts";
import { busyboxImage, installed, upUnit } from "./product.ts";
import { VirtualMachine, type VirtualMachineOptions } from "./virtual-machine.ts";

const apiPort = 6443;
const unit = "remora-up.service";
const adminKubeconfig = "/var/lib/remora/control-plane/admin.conf";
const pods = "/api/v1/namespaces/default/pods";
const claims = "/api/v1/namespaces/default/persistentvolumeclaims";

/** Emulated and beside other work: what takes a second elsewhere may take a minute here. */
const patienceMs = 10 * 60_000;

const collections: Readonly<Record<string, string>> = {
  Pod: pods,
  Service: "/api/v1/namespaces/default/services",
  Secret: "/api/v1/namespaces/default/secrets",
  PersistentVolumeClaim: claims,
};

type Options = Pick<VirtualMachineOptions, "image" | "disks">;

/** A machine with Remora installed at {@link installed} and images loaded, and its API as an administrator sees it. */
export class Node implements AsyncDisposable {
  readonly machine: VirtualMachine;
  /** Lines of {@link traces} before Remora was first started. */
  readonly untouched: readonly string[];
  #client: HttpClient | undefined;

  private constructor(machine: VirtualMachine, untouched: readonly string[]) {
    this.machine = machine;
    this.untouched = untouched;
  }

  /** Boots the machine. Its second disk is what {@link makePayload} made. */
  static async start({ disks, image }: Options): Promise<Node> {
    const machine = await VirtualMachine.start({
      image,
      disks,
      ports: [apiPort],
      memoryMiB: 2560,
      // 32 MiB that only huge pages can use.
      kernelArguments: ["hugepages=16"],
    });
    try {
      await machine.sh("mount -o ro /dev/vdb /opt");
      await machine.writeFile(`/etc/systemd/system/${unit}`, upUnit());
      await machine.sh("systemctl daemon-reload; systemctl start docker.service");
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

  /** Has systemd run `remora up`, and waits until its node is ready. */
  async up(): Promise<void> {
    await this.machine.sh(`systemctl start ${unit}`);
    const text = await this.until("the administrator's kubeconfig", async () => {
      const read = await this.machine.exec(["cat", adminKubeconfig], { allowFailure: true });
      return read.exitCode === 0 ? read.stdout : undefined;
    });
    const kubeconfig = await parseKubeconfig(text, adminKubeconfig);
    const server = `https://127.0.0.1:${this.machine.port(apiPort)}`;
    this.#client = createHttpClient({
      kubeconfig: { ...kubeconfig, cluster: { ...kubeconfig.cluster, server } },
      userAgent: "remora-test",
      clock: systemClock,
      logger: silentLogger,
    });
    await this.ready();
  }

  /** Kills the agent without a word, and waits until systemd has started it again and the API answers. */
  async crash(): Promise<void> {
    await this.machine.sh(`systemctl kill --kill-whom=main --signal=KILL ${unit}`);
    await this.until("systemd has started it again", async () =>
      (await this.machine.sh(`systemctl show -P NRestarts ${unit}`)) === "1" ? true : undefined,
    );
    await this.ready();
  }

  /** Ends Remora as its unit is stopped, and runs `remora down`. @returns what it printed. */
  async down(): Promise<string> {
    await this.machine.sh(`systemctl stop ${unit}`);
    return this.machine.sh(`${installed}/bin/remora down 2>&1`, { timeoutMs: patienceMs });
  }

  async get<T>(path: string): Promise<T> {
    return this.#request<T>("GET", path);
  }

  async create(object: Manifest): Promise<void> {
    const path = collections[object.kind];
    if (path === undefined) throw new Error(`where do objects of kind ${object.kind} go?`);
    await this.#request("POST", path, object);
  }

  async pod(name: string): Promise<Pod> {
    return this.get<Pod>(`${pods}/${name}`);
  }

  async pods(): Promise<readonly Pod[]> {
    return (await this.get<{ readonly items: readonly Pod[] }>(pods)).items;
  }

  /** Asks for its deletion, and does not wait for it. */
  async deletePod(name: string): Promise<void> {
    await this.#request("DELETE", `${pods}/${name}`);
  }

  /** Asks for its deletion, and does not wait for it. */
  async deleteClaim(name: string): Promise<void> {
    await this.#request("DELETE", `${claims}/${name}`);
  }

  async deletePods(): Promise<void> {
    await this.#request("DELETE", pods);
    await this.until("all pods are gone", async () =>
      (await this.pods()).length === 0 ? true : undefined,
    );
  }

  /** Waits until the API says that the node is ready. */
  async ready(): Promise<void> {
    await this.until("the node is ready", async () => {
      const { items } = await this.get<{ readonly items: readonly Pod[] }>("/api/v1/nodes");
      return isTrue(items[0], "Ready") ? true : undefined;
    });
  }

  /** The pod once it is ready. */
  async podReady(name: string): Promise<Pod> {
    return this.until(`pod ${name} is ready`, async () => {
      const pod = await this.pod(name);
      return isTrue(pod, "Ready") ? pod : undefined;
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
    const script = `journalctl -u ${unit} -o cat -n 40; docker ps -a --format '{{.Names}} {{.Status}}'`;
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

/**
 * Everything on a machine that an agent could leave behind: rules, interfaces, routes, mounts, cgroups, containers, files.
 * Options of the cgroup mount are left out: old versions of runc change them for privileged containers.
 */
export async function traces(machine: VirtualMachine): Promise<readonly string[]> {
  const text = await machine.sh(`
    nft --stateless list ruleset | sed 's/^/rule /'
    ip -o link | sed 's/^[0-9]*: \\([^:@]*\\).*/interface \\1/'
    ip -o route show table all | grep -v ' dev eth0 ' | sed 's/ expires .*//; s/^/route /'
    sed '/^cgroup2 /s/ rw.*//; s/^/mount /' /proc/mounts
    find /sys/fs/cgroup -type d -name 'kubepods*' | sed 's/^/cgroup /'
    systemctl list-units --all --plain --no-legend 'kubepods*' 'docker-*' | sed 's/^/unit /'
    ls /run/systemd/transient /run/systemd/system.control 2>/dev/null | grep kubepods | sed 's/^/unit file /'
    docker ps -aq --no-trunc | sed 's/^/container /'
    docker images --format 'image {{.Repository}}:{{.Tag}}'
    docker network ls --format 'network {{.Name}}'
    ls -d /var/lib/remora /var/lib/kubelet /run/remora* /var/log/pods/* /var/log/containers/* /root/.kube/* 2>/dev/null |
      sed 's/^/file /'
    ps -eo comm,args | grep -e remora -e pause | grep -v -e grep -e 'sh -euc' | sed 's/^/process /'
    true`);
  return text
    .split("\n")
    .map((line) => line.trim())
    .toSorted();
}
