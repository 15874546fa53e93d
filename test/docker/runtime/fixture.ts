import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { DockerClient } from "../../../src/runtime/docker/client.ts";
import { createDockerRuntime } from "../../../src/runtime/docker/runtime.ts";
import { tarFile } from "../../../src/runtime/docker/tar.ts";
import { isRuntimeFailure } from "../../../src/runtime/errors.ts";
import type {
  ContainerConfig,
  ContainerRuntime,
  ImageService,
  LinuxResources,
  LinuxSecurityContext,
  PodSandboxConfig,
  SandboxRecord,
} from "../../../src/runtime/types.ts";

/** The engine's socket; REMORA_TEST_DOCKER points the tests at another engine. */
export const socketPath = process.env["REMORA_TEST_DOCKER"] ?? "/var/run/docker.sock";

/** A signal that nothing aborts within a test's life. */
export function testSignal(): AbortSignal {
  return AbortSignal.timeout(120_000);
}

/** A runtime whose containers carry a label that nobody else uses; disposal removes all of them. */
export interface Fixture extends AsyncDisposable {
  readonly runtime: ContainerRuntime & ImageService;
  /** A second runtime on the same labels: what a restarted agent sees. */
  restarted(): ContainerRuntime & ImageService;
  readonly client: DockerClient;
  readonly scope: string;
  readonly podLogsDir: string;
  readonly containerLogsDir: string;
  /** Id of an image with busybox as its only program, of this fixture alone. */
  readonly busybox: string;
  readonly busyboxName: string;
}

/** Imports Debian's static busybox, with a few accounts, without a registry. */
async function importBusybox(client: DockerClient, name: string): Promise<void> {
  const files = [
    tarFile("bin/busybox", await readFile("/bin/busybox"), 0o755),
    tarFile(
      "etc/passwd",
      Buffer.from("root:x:0:0::/:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n"),
      0o644,
    ),
    tarFile("etc/group", Buffer.from("root:x:0:\nweb:x:1000:\nmedia:x:3000:web\n"), 0o644),
  ];
  // Each archive ends with two empty blocks; only the last one may keep them.
  const end = 1024;
  const tar = Buffer.concat([
    ...files.slice(0, -1).map((file) => file.subarray(0, -end)),
    ...files.slice(-1),
  ]);
  const [repo, tag] = name.split(":");
  await client.call(
    {
      op: "import",
      method: "POST",
      path: "/images/create",
      query: {
        fromSrc: "-",
        repo,
        tag,
        changes: ["ENV PATH=/bin", 'ENTRYPOINT ["/bin/busybox"]', 'CMD ["sh"]'],
      },
      tar,
      timeoutMs: 60_000,
    },
    testSignal(),
  );
}

export async function createFixture(): Promise<Fixture> {
  const scope = `test-${randomUUID()}`;
  const directory = await mkdtemp(join(tmpdir(), "remora-runtime-"));
  const podLogsDir = join(directory, "pods");
  const containerLogsDir = join(directory, "containers");
  const client = new DockerClient({ socketPath, clock: systemClock });
  const create = (): ContainerRuntime & ImageService =>
    createDockerRuntime({
      socketPath,
      nodeName: "test-node",
      scope,
      podLogsDir,
      containerLogsDir,
      clock: systemClock,
      logger: silentLogger,
      random: () => 0.5,
    });
  const runtime = create();
  const busyboxName = `remora.local/test-busybox:${scope}`;
  let pausesBefore: ReadonlySet<string> | undefined;
  const sweep = async (): Promise<void> => {
    try {
      for (const { id } of await scoped(client, scope)) await remove(client, id);
      const busybox = await runtime.imageStatus(busyboxName, testSignal());
      if (busybox !== undefined) await runtime.removeImage(busybox.id, testSignal());
      for (const id of await pauseImages(runtime)) {
        if (pausesBefore?.has(id) !== false) continue;
        // Ours; but a test beside this one may use it, and sweeps it then.
        await runtime.removeImage(id, testSignal()).catch(ignoreInUse);
      }
      assert.deepEqual(await scoped(client, scope), [], "the test leaves containers behind");
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  };
  try {
    pausesBefore = await pauseImages(runtime);
    await runtime.connect(testSignal());
    await importBusybox(client, busyboxName);
    const image = await runtime.imageStatus(busyboxName, testSignal());
    if (image === undefined) throw new Error("busybox was imported but is not there");
    return {
      runtime,
      restarted: create,
      client,
      scope,
      podLogsDir,
      containerLogsDir,
      busybox: image.id,
      busyboxName,
      [Symbol.asyncDispose]: sweep,
    };
  } catch (error) {
    await sweep();
    throw error;
  }
}

function ignoreInUse(error: unknown): void {
  if (!isRuntimeFailure(error, "WrongState")) throw error;
}

async function pauseImages(runtime: ImageService): Promise<ReadonlySet<string>> {
  const images = await runtime.listImages(testSignal());
  return new Set(images.filter(({ pinned }) => pinned === true).map(({ id }) => id));
}

/** Ids and names of all that carries the scope, by the engine's own word. */
export async function scoped(
  client: DockerClient,
  scope: string,
): Promise<{ readonly id: string; readonly name: string; readonly state: string }[]> {
  const list = (await client.call(
    {
      op: "list",
      method: "GET",
      path: "/containers/json",
      query: { all: 1, filters: JSON.stringify({ label: [`remora.io/scope=${scope}`] }) },
    },
    testSignal(),
  )) as { Id: string; Names: string[]; State: string }[];
  return list.map(({ Id, Names, State }) => ({ id: Id, name: Names[0] ?? "", state: State }));
}

/** Removes one container by force; gone already is fine. */
async function remove(client: DockerClient, id: string): Promise<void> {
  await client
    .call(
      {
        op: "remove",
        method: "DELETE",
        path: `/containers/${id}`,
        query: { force: 1, v: 1 },
        timeoutMs: 30_000,
      },
      testSignal(),
    )
    .catch((error: unknown) => {
      if (!isRuntimeFailure(error, "NotFound")) throw error;
    });
}

export function sandboxConfig(over: Partial<PodSandboxConfig> = {}): PodSandboxConfig {
  return {
    metadata: { name: "web", namespace: "default", uid: randomUUID(), attempt: 0 },
    hostname: "web",
    labels: {},
    record: "{}",
    network: "pod",
    ipc: "pod",
    pid: "container",
    sysctls: {},
    cgroupParent: undefined,
    runtimeHandler: "",
    shmBytes: undefined,
    ...over,
  };
}

export const resources: LinuxResources = {
  cpuShares: 2,
  cpuQuotaMicros: 0,
  cpuPeriodMicros: 100_000,
  memoryLimitBytes: 0,
  oomScoreAdj: 1000,
  pidsLimit: 0,
};

export const security: LinuxSecurityContext = {
  privileged: false,
  runAsUser: undefined,
  runAsGroup: undefined,
  supplementalGroups: [],
  supplementalGroupsPolicy: "Merge",
  readOnlyRootFilesystem: false,
  noNewPrivileges: false,
  addCapabilities: [],
  dropCapabilities: [],
  seccomp: { kind: "unconfined" },
  appArmor: undefined,
  seLinux: undefined,
  unmaskedProc: false,
};

export function containerConfig(
  imageID: string,
  script: string,
  over: Partial<ContainerConfig> = {},
): ContainerConfig {
  const name = over.name ?? "main";
  const attempt = over.attempt ?? 0;
  return {
    name,
    attempt,
    imageID,
    command: ["/bin/busybox", "sh", "-c", script],
    args: undefined,
    env: [],
    workingDir: undefined,
    mounts: [],
    devices: [],
    labels: {},
    specHash: "hash",
    record: "{}",
    logPath: `default_web_uid/${name}/${attempt}.log`,
    logMaxBytes: 1 << 20,
    logMaxFiles: 3,
    stdin: false,
    stdinOnce: false,
    tty: false,
    resources,
    security,
    pid: "container",
    targetContainerID: undefined,
    stopSignal: undefined,
    terminationGracePeriodSeconds: 30,
    ...over,
  };
}

/** Creates and starts a container that runs a busybox shell script. */
export async function runScript(
  fixture: Fixture,
  sandbox: SandboxRecord,
  script: string,
  over: Partial<ContainerConfig> = {},
): Promise<string> {
  const config = containerConfig(fixture.busybox, script, over);
  const { id } = await fixture.runtime.createContainer(sandbox, config, testSignal());
  await fixture.runtime.startContainer(id, testSignal());
  return id;
}

/** Waits until `probe` gives something, at most ten seconds. */
export async function eventually<T>(probe: () => Promise<T | undefined>, what: string): Promise<T> {
  const end = performance.now() + 10_000;
  while (performance.now() < end) {
    const value = await probe();
    if (value !== undefined) return value;
    await systemClock.sleep(20, testSignal());
  }
  throw new Error(`not within 10 s: ${what}`);
}

/** A script that ends at once on TERM: PID 1 ignores signals without a handler. */
export const sleeper = "trap 'exit 0' TERM; while :; do busybox sleep 0.1; done";
