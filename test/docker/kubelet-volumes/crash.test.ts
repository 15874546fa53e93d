import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { CONFIG_MAPS, NODES, PODS, SECRETS } from "../../../src/api/resources.ts";
import type { Pod } from "../../../src/api/types.gen.ts";
import type { StepName } from "../../../src/kubelet/steps.ts";
import { MountTable } from "../../../src/kubelet/volumes/mount-table.ts";
import { systemMounter } from "../../../src/kubelet/volumes/mounter.ts";
import { nodeName, podManifest } from "../../component/kubelet-pods/fixture.ts";
import { type FakeApiServer, startFakeApiServer } from "../../fakes/api-server.ts";
import { createFixture, eventually, type Fixture, scoped, socketPath } from "../runtime/fixture.ts";

const program = fileURLToPath(new URL("pod-half.ts", import.meta.url));

/** The pod half in a process that can be killed. */
class PodHalf {
  readonly #child: ChildProcess;
  readonly exited: Promise<void>;
  readonly lines: string[] = [];

  constructor(order: object) {
    const child = spawn(process.execPath, [program, JSON.stringify(order)], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#child = child;
    this.exited = once(child, "close").then(() => undefined);
    let rest = "";
    child.stdout.on("data", (chunk: Buffer) => {
      const lines = (rest + chunk.toString("utf8")).split("\n");
      rest = lines.pop() ?? "";
      this.lines.push(...lines);
    });
    child.stderr.on("data", (chunk: Buffer) => this.lines.push(chunk.toString("utf8")));
  }

  get killed(): boolean {
    return this.#child.signalCode === "SIGKILL";
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async crashAt(step: StepName, nth: number): Promise<void> {
    this.#child.stdin?.write(`${step} ${nth}\n`);
    await eventually(async () => this.lines.includes("armed") || undefined, "armed");
  }

  async end(): Promise<void> {
    if (this.running) this.#child.stdin?.end();
    await this.exited;
  }

  steps(): readonly StepName[] {
    return this.lines.flatMap((line) =>
      line.startsWith("step ") ? [line.slice("step ".length) as StepName] : [],
    );
  }
}

interface Stage extends AsyncDisposable {
  readonly api: FakeApiServer;
  readonly fixture: Fixture;
  readonly rootDir: string;
  /** Belongs to the host: nobody may touch what is in it. */
  readonly hostData: string;
  start(): PodHalf;
}

async function makeStage(): Promise<Stage> {
  const fixture = await createFixture();
  const api = await startFakeApiServer();
  const rootDir = await mkdtemp(join(tmpdir(), "volumes-crash-"));
  const hostData = join(rootDir, "host-data");
  await mkdir(join(hostData, "sub"), { recursive: true });
  await writeFile(join(hostData, "sub/file"), "precious");
  api.put(NODES, { metadata: { name: nodeName } });
  api.put(CONFIG_MAPS, { metadata: { name: "c", namespace: "default" }, data: { key: "1" } });
  api.put(SECRETS, {
    metadata: { name: "s", namespace: "default" },
    data: { word: Buffer.from("hush").toString("base64") },
  });
  const halves: PodHalf[] = [];
  return {
    api,
    fixture,
    rootDir,
    hostData,
    start: () => {
      const { kubeconfig } = api;
      const half = new PodHalf({ kubeconfig, rootDir, scope: fixture.scope, socketPath });
      halves.push(half);
      return half;
    },
    [Symbol.asyncDispose]: async () => {
      for (const half of halves) await half.end();
      await api.close();
      await fixture[Symbol.asyncDispose]();
      for (const { path } of mounts(rootDir)) {
        await systemMounter.unmount(path, AbortSignal.timeout(10_000));
      }
      await rm(rootDir, { recursive: true, force: true });
    },
  };
}

function mounts(rootDir: string): ReturnType<MountTable["below"]> {
  return new MountTable(readFileSync("/proc/self/mountinfo", "utf8")).below(rootDir);
}

function manifest({ fixture, hostData }: Stage): Pod {
  return podManifest("web", {
    hostNetwork: true,
    terminationGracePeriodSeconds: 1,
    containers: [
      {
        name: "web",
        image: fixture.busyboxName,
        imagePullPolicy: "Never",
        command: ["/bin/busybox", "sh", "-c", script],
        volumeMounts: [
          { name: "disk", mountPath: "/disk" },
          { name: "disk", mountPath: "/part", subPath: "a/b" },
          { name: "memory", mountPath: "/memory" },
          { name: "secret", mountPath: "/secret" },
          { name: "all", mountPath: "/all" },
          { name: "all", mountPath: "/key", subPath: "key" },
          { name: "host", mountPath: "/host" },
        ],
      },
    ],
    volumes: [
      { name: "disk", emptyDir: {} },
      { name: "memory", emptyDir: { medium: "Memory", sizeLimit: "1Mi" } },
      { name: "secret", secret: { secretName: "s" } },
      {
        name: "all",
        projected: { sources: [{ configMap: { name: "c" } }, { secret: { name: "s" } }] },
      },
      { name: "host", hostPath: { path: hostData, type: "Directory" } },
    ],
  });
}

/** Fills its volumes, says what it sees of them, and stays. */
const script = [
  "trap 'exit 0' TERM",
  "mkdir -p /disk/tree/deep /memory/tree",
  "echo x >/disk/tree/deep/file; echo x >/memory/tree/file; echo x >/part/file",
  "ln -sf /host/sub /disk/link; ln -sf /host/sub/file /part/link",
  "cat /secret/word /key /all/word >/disk/seen",
  "while :; do busybox sleep 0.1; done",
].join("\n");

/** The pod runs, and has seen its volumes' content. */
async function isRight({ api, rootDir }: Stage): Promise<true | undefined> {
  const pod = api.get(PODS, "default/web");
  const ready = pod?.status?.conditions?.some(
    ({ type, status }) => type === "Ready" && status === "True",
  );
  if (pod === undefined || ready !== true) return undefined;
  const volume = join(rootDir, "pods", pod.metadata.uid, "volumes/kubernetes.io~empty-dir/disk");
  const seen = await readFile(join(volume, "seen"), "utf8").catch(() => "");
  return seen === "hush1hush" ? true : undefined;
}

async function assertClean(stage: Stage, where: string): Promise<void> {
  const { api, fixture, hostData, rootDir } = stage;
  await eventually(
    async () => (api.get(PODS, "default/web") === undefined ? true : undefined),
    `${where}: gone from the API`,
  );
  await eventually(async () => {
    const pods = await readdir(join(rootDir, "pods"));
    return pods.length === 0 && mounts(rootDir).length === 0 ? true : undefined;
  }, `${where}: clean`).catch(async (error: unknown) => {
    const left = await readdir(join(rootDir, "pods"), { recursive: true });
    assert.fail(
      `${String(error)}\n${left.join("\n")}\n${mounts(rootDir)
        .map(({ path }) => path)
        .join("\n")}`,
    );
  });
  assert.deepEqual(await scoped(fixture.client, fixture.scope), [], where);
  assert.equal(await readFile(join(hostData, "sub/file"), "utf8"), "precious", where);
  assert.deepEqual(await readdir(hostData), ["sub"], where);
}

function deletePod({ api }: Stage): void {
  const pod = api.get(PODS, "default/web");
  assert(pod !== undefined);
  api.put<Pod>(PODS, {
    ...pod,
    metadata: {
      ...pod.metadata,
      deletionTimestamp: "2026-01-01T00:00:00Z",
      deletionGracePeriodSeconds: 1,
    },
  });
}

const volumeSteps: ReadonlySet<string> = new Set<StepName>([
  "makePodDirectories",
  "mountVolume",
  "writeVolume",
  "bindSubPath",
  "tearDownVolume",
  "unmountVolume",
  "removeVolume",
  "removePodDirectories",
]);

/** Each volume step with its number among those of its name. */
function numbered(steps: readonly StepName[]): readonly (readonly [StepName, number])[] {
  const count = new Map<StepName, number>();
  return steps.flatMap((step) => {
    if (!volumeSteps.has(step)) return [];
    const nth = (count.get(step) ?? 0) + 1;
    count.set(step, nth);
    return [[step, nth] as const];
  });
}

async function right(stage: Stage, where: string, half: PodHalf): Promise<void> {
  await eventually(async () => isRight(stage), `${where}: right`).catch((error: unknown) => {
    const status = JSON.stringify(stage.api.get(PODS, "default/web")?.status);
    assert.fail(`${String(error)}\n${half.lines.join("\n")}\n${status}`);
  });
}

test("kill -9 at every volume step of a pod's start and end leaves no mount, no directory, and the host's data", async (t) => {
  await using stage = await makeStage();
  const { api } = stage;
  // Once without a crash: which steps there are.
  let half = stage.start();
  api.put(PODS, manifest(stage));
  await right(stage, "undisturbed", half);
  const starts = numbered(half.steps());
  const before = half.steps().length;
  deletePod(stage);
  await assertClean(stage, "undisturbed");
  const ends = numbered(half.steps().slice(before));
  assert.deepEqual(
    [...volumeSteps].filter((step) => ![...starts, ...ends].some(([met]) => met === step)),
    [],
    "every volume step is met",
  );

  t.diagnostic(`${starts.length} steps of its start, ${ends.length} of its end`);
  for (const [step, nth] of starts) {
    const where = `start, ${step} ${nth}`;
    await half.crashAt(step, nth);
    api.put(PODS, manifest(stage));
    await half.exited;
    assert(half.killed, where);
    half = stage.start();
    await right(stage, where, half);
    deletePod(stage);
    await assertClean(stage, where);
  }
  for (const [step, nth] of ends) {
    const where = `end, ${step} ${nth}`;
    api.put(PODS, manifest(stage));
    await right(stage, where, half);
    await half.crashAt(step, nth);
    deletePod(stage);
    await half.exited;
    assert(half.killed, where);
    half = stage.start();
    await assertClean(stage, where);
  }
});

test("what a pod that was removed meanwhile had is cleaned up by the next process", async () => {
  await using stage = await makeStage();
  const { api } = stage;
  const half = stage.start();
  api.put(PODS, manifest(stage));
  await right(stage, "before", half);
  await half.crashAt("tearDownVolume", 1);
  deletePod(stage);
  await half.exited;
  api.remove(PODS, "default/web");
  assert(mounts(stage.rootDir).length > 0, "there is something to clean up");
  stage.start();
  await assertClean(stage, "orphan");
});
