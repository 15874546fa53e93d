import { RuntimeError } from "../../src/runtime/errors.ts";
import type {
  ContainerConfig,
  ContainerLimits,
  ContainerRecord,
  ContainerRuntime,
  ContainerState,
  ExecResult,
  Image,
  ImageService,
  PodRecord,
  PodSandboxConfig,
  RuntimeEvent,
  RuntimeFeature,
  RuntimeInfo,
  SandboxRecord,
  StreamSession,
} from "../../src/runtime/types.ts";

export interface FakeContainer {
  readonly id: string;
  readonly sandboxID: string;
  /** Whose it is, as its labels say: the sandbox may be gone. */
  readonly pod: PodSandboxConfig["metadata"];
  readonly config: ContainerConfig;
  state: ContainerState;
  limits: ContainerLimits;
  /** Somebody gave it a restart policy. */
  engineRestarts?: boolean;
}

export interface FakeSandbox {
  readonly id: string;
  readonly config: PodSandboxConfig;
  readonly createdAt: number;
  ready: boolean;
  /** Somebody stopped it and started it again. */
  restarted?: boolean;
}

/** What a container does when it starts: nothing (it runs on) or exit at once. */
export type Program = (config: ContainerConfig) => { readonly exitCode: number } | undefined;

export interface FakeRuntime extends ContainerRuntime, ImageService {
  readonly containers: ReadonlyMap<string, FakeContainer>;
  readonly sandboxes: ReadonlyMap<string, FakeSandbox>;
  /** Every mutating call, as `verb name`. */
  readonly calls: readonly string[];
  /** How many containers were ever started, by name. */
  readonly starts: ReadonlyMap<string, number>;
  program: Program;
  /** Answers execSync. */
  onExec: (containerID: string, command: readonly string[]) => Partial<ExecResult>;
  /** Seconds a container takes to obey its stop signal; more than the grace means SIGKILL. */
  stopSeconds: number;
  /** How a container ends that obeys its stop signal. */
  stopExitCode: number;
  /** Called before each mutating call; throw to make it fail. */
  fail: (call: string) => void;
  addImage(reference: string, image?: Partial<Image>): Image;
  /** References that the registry has. */
  readonly registry: Map<string, Image>;
  /** Layers by image id; default: none. */
  readonly layers: Map<string, readonly string[]>;
  /** What it can do beside what all tests expect of it; read when an agent connects. */
  readonly moreFeatures: Set<RuntimeFeature>;
  /** The container's process ends. */
  exit(name: string, exitCode: number): void;
  /** The sandbox's process dies. */
  killSandbox(): void;
  /** Somebody removes all containers of this name, running or not. */
  removeByHand(name: string): void;
  /** Somebody starts a container that has ended. */
  startByHand(containerID: string): void;
  /** Somebody gives a container other limits. */
  limitByHand(name: string, limits: Partial<ContainerLimits>): void;
  /** Somebody tells the engine to restart a container by itself. */
  restartByEngine(name: string): void;
  /** The engine cannot tell any more in which state a container is. */
  loseState(name: string): void;
  /** Somebody removes all sandboxes; what runs in them lives on. */
  removeSandboxesByHand(): void;
  /** Somebody restarts all sandboxes: their processes are others now. */
  restartSandboxesByHand(): void;
}

const info: RuntimeInfo = {
  name: "docker",
  version: "20.10.24",
  apiVersion: "1.41",
  cgroupDriver: "cgroupfs",
  cgroupVersion: 2,
  rootDir: "/var/lib/docker",
  handlers: [""],
  features: new Set(["stopSignal", "imageVolumes"]),
  warnings: [],
};

function compareNewest(a: { readonly attempt: number }, b: { readonly attempt: number }): number {
  return b.attempt - a.attempt;
}

/**
 * A strict container engine in memory: what a real one refuses (names taken, wrong states, things in use) fails here
 * too, so that a test notices a caller that relies on luck.
 */
class MemoryRuntime implements FakeRuntime {
  readonly containers = new Map<string, FakeContainer>();
  readonly sandboxes = new Map<string, FakeSandbox>();
  readonly calls: string[] = [];
  readonly starts = new Map<string, number>();
  readonly registry = new Map<string, Image>();
  readonly layers = new Map<string, readonly string[]>();
  readonly moreFeatures = new Set<RuntimeFeature>();
  readonly #images = new Map<string, Image>();
  readonly #listeners = new Set<(event: RuntimeEvent) => void>();
  readonly #now: () => number;
  program: Program = () => undefined;
  onExec: FakeRuntime["onExec"] = () => ({});
  stopSeconds = 0;
  stopExitCode = 143;
  fail: (call: string) => void = () => undefined;
  #sequence = 0;

  constructor(now: () => number) {
    this.#now = now;
  }

  addImage(reference: string, image: Partial<Image> = {}): Image {
    const id = `sha256:${String(this.#images.size + 1).padStart(64, "a")}`;
    const full: Image = {
      id,
      tags: [reference],
      digests: [`${reference.split(":")[0] ?? ""}@sha256:${"d".repeat(64)}`],
      sizeBytes: 1000,
      user: {},
      stopSignal: undefined,
      ...image,
    };
    this.#images.set(reference, full);
    return full;
  }

  exit(name: string, exitCode: number): void {
    for (const container of this.containers.values()) {
      if (container.config.name === name && container.state.kind === "running") {
        this.#exit(container, exitCode);
      }
    }
  }

  killSandbox(): void {
    for (const sandbox of this.sandboxes.values()) {
      if (!sandbox.ready) continue;
      sandbox.ready = false;
      this.#emit("exited", sandbox.config.metadata.uid, sandbox.id);
    }
  }

  removeByHand(name: string): void {
    for (const container of this.containers.values()) {
      if (container.config.name !== name) continue;
      this.containers.delete(container.id);
      this.#emit("removed", this.#uidOf(container), container.id);
    }
  }

  startByHand(containerID: string): void {
    const container = this.#container(containerID);
    const { createdAt } = container.state;
    container.state = { kind: "running", createdAt, startedAt: this.#now(), pid: 1001 };
    this.#emit("started", this.#uidOf(container), containerID);
  }

  limitByHand(name: string, limits: Partial<ContainerLimits>): void {
    for (const container of this.containers.values()) {
      if (container.config.name !== name) continue;
      container.limits = { ...container.limits, ...limits };
      this.#emit("updated", this.#uidOf(container), container.id);
    }
  }

  restartByEngine(name: string): void {
    for (const container of this.containers.values()) {
      if (container.config.name !== name) continue;
      container.engineRestarts = true;
      this.#emit("updated", this.#uidOf(container), container.id);
    }
  }

  loseState(name: string): void {
    for (const container of this.containers.values()) {
      if (container.config.name !== name || container.state.kind !== "running") continue;
      container.state = { kind: "unknown", createdAt: container.state.createdAt };
      this.#emit("updated", this.#uidOf(container), container.id);
    }
  }

  removeSandboxesByHand(): void {
    for (const sandbox of this.sandboxes.values()) {
      this.sandboxes.delete(sandbox.id);
      this.#emit("removed", sandbox.config.metadata.uid, sandbox.id);
    }
  }

  restartSandboxesByHand(): void {
    for (const sandbox of this.sandboxes.values()) {
      sandbox.restarted = true;
      this.#emit("exited", sandbox.config.metadata.uid, sandbox.id);
    }
  }

  async connect(): Promise<RuntimeInfo> {
    return { ...info, features: new Set([...info.features, ...this.moreFeatures]) };
  }

  async ping(): Promise<void> {
    this.#call("ping");
  }

  async snapshot(): Promise<ReadonlyMap<string, PodRecord>> {
    const pods = [
      ...[...this.sandboxes.values()].map(({ config }) => config.metadata),
      ...[...this.containers.values()].map(({ pod }) => pod),
    ];
    return new Map(pods.map(({ uid }) => [uid, this.#record(uid)]));
  }

  async podRecord(uid: string): Promise<PodRecord> {
    return this.#record(uid);
  }

  async *events(signal: AbortSignal): AsyncGenerator<RuntimeEvent> {
    const queue: RuntimeEvent[] = [{ kind: "resync" }];
    let wake = (): void => undefined;
    const listener = (event: RuntimeEvent): void => {
      queue.push(event);
      wake();
    };
    this.#listeners.add(listener);
    const onAbort = (): void => wake();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      while (!signal.aborted) {
        const event = queue.shift();
        if (event !== undefined) yield event;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      this.#listeners.delete(listener);
      signal.removeEventListener("abort", onAbort);
    }
  }

  async runPodSandbox(config: PodSandboxConfig): Promise<SandboxRecord> {
    const { uid, attempt } = config.metadata;
    this.#call(`runPodSandbox ${attempt}`);
    for (const sandbox of this.sandboxes.values()) {
      const other = sandbox.config.metadata;
      if (other.uid === uid && other.attempt === attempt) {
        sandbox.ready = true;
        return this.#sandboxRecord(sandbox);
      }
    }
    const sandbox = { id: this.#id("sandbox"), config, createdAt: this.#now(), ready: true };
    this.sandboxes.set(sandbox.id, sandbox);
    this.#emit("started", uid, sandbox.id);
    return this.#sandboxRecord(sandbox);
  }

  async stopPodSandbox(sandboxID: string): Promise<void> {
    this.#call(`stopPodSandbox ${sandboxID}`);
    const sandbox = this.sandboxes.get(sandboxID);
    if (sandbox === undefined) return;
    if (this.#inSandbox(sandboxID).some(({ state }) => state.kind === "running")) {
      throw new RuntimeError("WrongState", "containers of the sandbox still run");
    }
    sandbox.ready = false;
    this.#emit("exited", sandbox.config.metadata.uid, sandboxID);
  }

  async removePodSandbox(sandboxID: string): Promise<void> {
    this.#call(`removePodSandbox ${sandboxID}`);
    const sandbox = this.sandboxes.get(sandboxID);
    if (sandbox === undefined) return;
    if (sandbox.ready) throw new RuntimeError("WrongState", "the sandbox still runs");
    for (const { id, state } of this.#inSandbox(sandboxID)) {
      if (state.kind === "running") throw new RuntimeError("WrongState", "a container still runs");
      this.containers.delete(id);
    }
    this.sandboxes.delete(sandboxID);
    this.#emit("removed", sandbox.config.metadata.uid, sandboxID);
  }

  async createContainer(
    sandbox: SandboxRecord,
    config: ContainerConfig,
  ): Promise<{ id: string; warnings: readonly string[] }> {
    const own = this.sandboxes.get(sandbox.id);
    const uid = sandbox.metadata.uid;
    try {
      this.#call(`createContainer ${config.name} ${config.attempt}`);
    } catch (error) {
      // Docker makes a container, finds out that it cannot, and tells of the removal of what nobody has seen.
      this.#emit("removed", uid, this.#id("container"));
      throw error;
    }
    if (own === undefined) throw new RuntimeError("NotFound", "no such sandbox");
    for (const other of this.containers.values()) {
      const same = other.config.name === config.name && other.config.attempt === config.attempt;
      if (!same || this.#uidOf(other) !== uid) continue;
      if (other.state.kind === "created" && other.sandboxID === sandbox.id) {
        return { id: other.id, warnings: [] };
      }
      throw new RuntimeError("AlreadyExists", `the name of ${config.name} is taken`);
    }
    if (![...this.#images.values()].some(({ id }) => id === config.imageID)) {
      throw new RuntimeError("ImageMissing", `No such image: ${config.imageID}`);
    }
    const id = this.#id("container");
    const state = { kind: "created", createdAt: this.#now() } as const;
    const { cpuShares, cpuQuotaMicros, memoryLimitBytes } = config.resources;
    const limits = { cpuShares, cpuQuotaMicros, memoryLimitBytes };
    const pod = own.config.metadata;
    this.containers.set(id, { id, sandboxID: sandbox.id, pod, config, state, limits });
    return { id, warnings: [] };
  }

  async startContainer(containerID: string): Promise<void> {
    const container = this.#container(containerID);
    this.#call(`startContainer ${container.config.name} ${container.config.attempt}`);
    if (container.state.kind === "running") return;
    if (container.state.kind !== "created") {
      throw new RuntimeError("WrongState", "only a created container can be started");
    }
    if (this.sandboxes.get(container.sandboxID)?.ready !== true) {
      throw new RuntimeError("StartFailed", "cannot join network of a non running container");
    }
    const twin = [...this.containers.values()].find(
      (other) =>
        other.config.name === container.config.name &&
        other.state.kind === "running" &&
        this.#uidOf(other) === this.#uidOf(container),
    );
    if (twin !== undefined) {
      throw new RuntimeError("WrongState", `${container.config.name} runs twice`);
    }
    const { name } = container.config;
    this.starts.set(name, (this.starts.get(name) ?? 0) + 1);
    const { createdAt } = container.state;
    container.state = { kind: "running", createdAt, startedAt: this.#now(), pid: 1000 };
    this.#emit("started", this.#uidOf(container), containerID);
    const ended = this.program(container.config);
    if (ended !== undefined) this.#exit(container, ended.exitCode);
  }

  async stopContainer(
    containerID: string,
    gracePeriodSeconds: number,
    signal: AbortSignal,
  ): Promise<void> {
    const container = this.containers.get(containerID);
    if (container === undefined) return;
    this.#call(`stopContainer ${container.config.name} ${gracePeriodSeconds}`);
    if (container.state.kind !== "running") return;
    signal.throwIfAborted();
    this.#exit(container, this.stopSeconds > gracePeriodSeconds ? 137 : this.stopExitCode);
  }

  async removeContainer(containerID: string): Promise<void> {
    const container = this.containers.get(containerID);
    if (container === undefined) return;
    this.#call(`removeContainer ${container.config.name} ${container.config.attempt}`);
    if (container.state.kind === "running") {
      throw new RuntimeError("WrongState", "the container still runs");
    }
    this.containers.delete(containerID);
    this.#emit("removed", this.#uidOf(container), containerID);
  }

  async updateContainer(containerID: string, limits: ContainerLimits): Promise<void> {
    const container = this.#container(containerID);
    this.#call(`updateContainer ${container.config.name}`);
    if (container.state.kind !== "running") {
      throw new RuntimeError("WrongState", "the container does not run");
    }
    const { cpuQuotaMicros, cpuShares, memoryLimitBytes } = limits;
    container.limits = {
      cpuShares,
      cpuQuotaMicros: cpuQuotaMicros === 0 ? container.limits.cpuQuotaMicros : cpuQuotaMicros,
      memoryLimitBytes:
        memoryLimitBytes === 0 ? container.limits.memoryLimitBytes : memoryLimitBytes,
    };
    container.engineRestarts = false;
  }

  async containerLogPath(): Promise<string | undefined> {
    return undefined;
  }

  async execSync(containerID: string, command: readonly string[]): Promise<ExecResult> {
    if (this.#container(containerID).state.kind !== "running") {
      throw new RuntimeError("WrongState", "the container does not run");
    }
    const empty = new Uint8Array();
    const answer = this.onExec(containerID, command);
    return { exitCode: 0, stdout: empty, stderr: empty, timedOut: false, ...answer };
  }

  async exec(): Promise<StreamSession> {
    throw new RuntimeError("Unsupported", "the fake has no sessions");
  }

  async attach(): Promise<StreamSession> {
    throw new RuntimeError("Unsupported", "the fake has no sessions");
  }

  async listImages(): Promise<readonly Image[]> {
    return [...this.#images.values()];
  }

  async imageStatus(reference: string): Promise<Image | undefined> {
    const byID = [...this.#images.values()].find(({ id }) => id === reference);
    return this.#images.get(reference) ?? byID;
  }

  async pullImage(reference: string): Promise<Image> {
    this.#call(`pullImage ${reference}`);
    const image = this.registry.get(reference);
    if (image === undefined) {
      throw new RuntimeError("ImagePullFailed", `manifest for ${reference} not found`);
    }
    this.#images.set(reference, image);
    return image;
  }

  async removeImage(id: string): Promise<void> {
    for (const [reference, image] of this.#images) {
      if (image.id === id) this.#images.delete(reference);
    }
  }

  async imageLayers(id: string): Promise<readonly string[] | undefined> {
    return this.layers.get(id) ?? [];
  }

  #call(call: string): void {
    this.calls.push(call);
    this.fail(call);
  }

  #id(kind: string): string {
    this.#sequence += 1;
    return `${kind}-${this.#sequence}`;
  }

  #container(id: string): FakeContainer {
    const container = this.containers.get(id);
    if (container === undefined) throw new RuntimeError("NotFound", `no such container: ${id}`);
    return container;
  }

  #inSandbox(sandboxID: string): readonly FakeContainer[] {
    return [...this.containers.values()].filter((container) => container.sandboxID === sandboxID);
  }

  #uidOf(container: FakeContainer): string {
    return container.pod.uid;
  }

  #exit(container: FakeContainer, exitCode: number): void {
    if (container.state.kind !== "running") return;
    const { createdAt, startedAt } = container.state;
    const finishedAt = this.#now();
    container.state = {
      kind: "exited",
      createdAt,
      startedAt,
      finishedAt,
      exitCode,
      oomKilled: false,
      error: "",
    };
    this.#emit("exited", this.#uidOf(container), container.id);
  }

  #emit(
    kind: "started" | "exited" | "removed" | "updated",
    podUID: string,
    containerID: string,
  ): void {
    for (const listener of this.#listeners) listener({ kind, podUID, containerID });
  }

  #sandboxRecord(sandbox: FakeSandbox): SandboxRecord {
    const { id, config, createdAt, ready } = sandbox;
    return {
      id,
      metadata: config.metadata,
      ready,
      pid: ready ? 4242 : undefined,
      network: config.network,
      createdAt,
      labels: config.labels,
      record: config.record,
      ...(sandbox.restarted === true ? { restarted: true } : {}),
    };
  }

  #record(uid: string): PodRecord {
    const sandboxes = [...this.sandboxes.values()]
      .filter(({ config }) => config.metadata.uid === uid)
      .map((sandbox) => this.#sandboxRecord(sandbox))
      .toSorted((a, b) => compareNewest(a.metadata, b.metadata));
    const own = [...this.containers.values()].filter((container) => container.pod.uid === uid);
    const { name = "", namespace = "" } = sandboxes[0]?.metadata ?? own[0]?.pod ?? {};
    const containers = own
      .map((container): ContainerRecord => ({
        id: container.id,
        sandboxID: container.sandboxID,
        podUID: uid,
        podName: name,
        podNamespace: namespace,
        name: container.config.name,
        attempt: container.config.attempt,
        state: container.state,
        image: container.config.imageID,
        imageID: container.config.imageID,
        specHash: container.config.specHash,
        labels: container.config.labels,
        record: container.config.record,
        limits: container.limits,
        mountedImages: container.config.mounts.flatMap(({ image }) => image?.id ?? []),
        ...(container.engineRestarts === true ? { engineRestarts: true } : {}),
      }))
      .toSorted(compareNewest);
    return { uid, name, namespace, sandboxes, containers };
  }
}

/** A {@link FakeRuntime} whose times come from `now`, milliseconds since the epoch. */
export function fakeRuntime(now: () => number): FakeRuntime {
  return new MemoryRuntime(now);
}
