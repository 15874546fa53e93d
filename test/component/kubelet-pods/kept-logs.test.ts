import assert from "node:assert/strict";
import {
  appendFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";

import { PODS } from "../../../src/api/resources.ts";
import { KeptLogs } from "../../../src/kubelet/pods/kept-logs.ts";
import { podLogPath } from "../../../src/kubelet/spec/container-config.ts";
import type { ContainerLookup } from "../../../src/kubelet/types.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { exited, pod, record, running } from "../../unit/kubelet-pods/builders.ts";
import { type Instance, makeWorld, podManifest, type World } from "./fixture.ts";

/** An engine's log directory and a pod's, without an engine. */
class Disk implements AsyncDisposable {
  readonly rootDir: string;
  readonly warnings: string[] = [];
  readonly logs: KeptLogs;

  private constructor(rootDir: string) {
    this.rootDir = rootDir;
    const podLogsDir = join(rootDir, "logs");
    const logger = {
      ...silentLogger,
      log: (level: string, message: string) => {
        this.warnings.push(`${level} ${message}`);
      },
    };
    this.logs = new KeptLogs({ config: { rootDir, podLogsDir }, logger });
  }

  static async make(): Promise<Disk> {
    return new Disk(await mkdtemp(join(tmpdir(), "logs-")));
  }

  engineLog(id: string): string {
    return join(this.rootDir, "engine", id, "json.log");
  }

  async write(attempt: number, text: string): Promise<string> {
    const path = this.engineLog(`web-${attempt}`);
    await mkdir(dirname(path), { recursive: true });
    await appendFile(path, text);
    const shown = join(this.rootDir, "logs", podLogPath(pod(), "web", attempt));
    await mkdir(dirname(shown), { recursive: true });
    await symlink(path, shown).catch(() => undefined);
    return path;
  }

  async keep(attempt: number): Promise<void> {
    await this.logs.keep(pod(), [record("web", running, { attempt })]);
  }

  async kept(): Promise<readonly string[]> {
    const directory = join(this.rootDir, "pods", "uid-1", "containers", "web");
    const names = await readdir(directory).catch(() => []);
    const texts = names
      .toSorted((a, b) => a.localeCompare(b))
      .map(async (name) => {
        return `${name}=${await readFile(join(directory, name), "utf8")}`;
      });
    return Promise.all(texts);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.rootDir, { recursive: true, force: true });
  }
}

/** A directory on another file system than that of temporary files; undefined where there is none. */
async function elsewhere(): Promise<string | undefined> {
  try {
    const [there, here] = await Promise.all([stat("/dev/shm"), stat(tmpdir())]);
    return there.dev === here.dev ? undefined : await mkdtemp("/dev/shm/engine-");
  } catch {
    return undefined;
  }
}

describe("the log of a container", () => {
  test("is copied at its end where the engine's directory is another file system", async (context) => {
    const engine = await elsewhere();
    if (engine === undefined) {
      context.skip("/dev/shm is no file system of its own here");
      return;
    }
    await using disk = await Disk.make();
    const path = join(engine, "json.log");
    const shown = join(disk.rootDir, "logs", podLogPath(pod(), "web", 0));
    try {
      await mkdir(dirname(shown), { recursive: true });
      await symlink(path, shown);
      await writeFile(path, "one ");
      await disk.keep(0);
      assert.deepEqual(await disk.kept(), [], "it may still grow");
      await appendFile(path, "two");
      const ended = record("web", exited(1));
      for (const file of [path, `${path}.gone`]) {
        await disk.logs.keep(pod(), [ended]);
        await rm(file, { force: true });
      }
      assert.deepEqual(await disk.kept(), ["web-0.log=one two"]);
      assert.deepEqual(disk.warnings, []);
    } finally {
      await rm(engine, { recursive: true, force: true });
    }
  });

  test("outlives its removal, with what was written after the last look", async () => {
    await using disk = await Disk.make();
    const path = await disk.write(0, "one ");
    await disk.keep(0);
    await disk.write(0, "two");
    await rm(dirname(path), { recursive: true });
    await disk.keep(0);
    assert.deepEqual(await disk.kept(), ["web-0.log=one two"]);
    const found = await disk.logs.find("uid-1", "web", "web-0");
    assert.equal(await readFile(found ?? "", "utf8"), "one two");
    assert.equal(await disk.logs.find("uid-1", "web", "web-1"), undefined);
  });

  test("is kept with its rotated siblings, as they are now", async () => {
    await using disk = await Disk.make();
    const path = await disk.write(0, "old");
    await disk.keep(0);
    for (const text of ["new", "newest"]) {
      await rename(`${path}.1`, `${path}.2`).catch(() => undefined);
      await rename(path, `${path}.1`);
      await writeFile(path, text);
      await disk.keep(0);
    }
    assert.deepEqual(await disk.kept(), ["web-0.log=newest", "web-0.log.1=new", "web-0.log.2=old"]);
    await rm(`${path}.2`);
    await disk.keep(0);
    assert.deepEqual(await disk.kept(), ["web-0.log=newest", "web-0.log.1=new"]);
  });

  test("goes when nobody can ask for it any more; other files of the container stay", async () => {
    await using disk = await Disk.make();
    for (const attempt of [0, 1, 2]) {
      await disk.write(attempt, String(attempt));
      await disk.keep(attempt);
    }
    await writeFile(join(disk.rootDir, "pods/uid-1/containers/web/2"), "last words");
    await disk.logs.drop("uid-1", "web", new Set(["web-1", "web-2"]));
    assert.deepEqual(await disk.kept(), ["2=last words", "web-1.log=1", "web-2.log=2"]);
    await disk.logs.drop("uid-1", "nobody", new Set());
  });

  test("that is no link is left alone, and so is one that is not there", async () => {
    await using disk = await Disk.make();
    await disk.keep(0);
    const shown = join(disk.rootDir, "logs", podLogPath(pod(), "web", 0));
    await mkdir(dirname(shown), { recursive: true });
    await writeFile(shown, "somebody else's");
    await disk.keep(0);
    assert.deepEqual([await disk.kept(), disk.warnings], [[], []]);
  });

  test("that cannot be kept is told of, and costs nothing else", async () => {
    await using disk = await Disk.make();
    await disk.write(0, "text");
    await mkdir(join(disk.rootDir, "pods", "uid-1"), { recursive: true });
    await writeFile(join(disk.rootDir, "pods", "uid-1", "containers"), "in the way");
    await disk.keep(0);
    assert.deepEqual(disk.warnings, [
      "warn the log of a container is lost if somebody removes that",
    ]);
  });
});

/** Makes the engine's log of the container that runs now. */
async function engineWrites(world: World, text: string): Promise<string> {
  const found = [...world.runtime.containers.values()].find(
    ({ state }) => state.kind === "running",
  );
  const whole = world.pod("web");
  assert(found !== undefined && whole !== undefined);
  const path = join(world.rootDir, "engine", found.id);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
  const { attempt, name } = found.config;
  const shown = join(world.rootDir, "logs", podLogPath(whole, name, attempt));
  await mkdir(dirname(shown), { recursive: true });
  await symlink(path, shown);
  return path;
}

async function lookUp(instance: Instance, previous: boolean): Promise<ContainerLookup> {
  const at = { namespace: "default", pod: "web", container: "web" };
  return instance.pods.view.findContainer(at, { previous });
}

async function logOf(lookup: ContainerLookup): Promise<string> {
  assert.equal(lookup.kind, "found");
  assert(lookup.kind === "found" && !lookup.running);
  const path = lookup.removed?.logPath;
  return path === undefined ? "" : readFile(path, "utf8");
}

describe("after docker system prune", () => {
  test("logs --previous shows the crash before; the one before that is gone", async () => {
    const world = await makeWorld();
    try {
      const instance = world.start();
      world.api.put(PODS, podManifest("web"));
      const restarts = (): number =>
        world.pod("web")?.status?.containerStatuses?.[0]?.restartCount ?? -1;
      await world.until("runs", () => restarts() === 0 && world.runtime.starts.get("web") === 1);
      const path = await engineWrites(world, "why I died");
      const id = world.pod("web")?.status?.containerStatuses?.[0]?.containerID;
      world.runtime.exit("web", 1);
      await world.until("again", () => restarts() === 1 && world.runtime.starts.get("web") === 2);
      for (const container of world.runtime.containers.values()) {
        if (container.state.kind === "exited")
          await world.runtime.removeContainer(container.id, AbortSignal.timeout(1000));
      }
      await rm(path);
      const lookup = await lookUp(instance, true);
      assert.equal(await logOf(lookup), "why I died");
      assert.equal(lookup.kind === "found" && `docker://${lookup.containerID}`, id);
      const now = await lookUp(instance, false);
      assert(now.kind === "found" && now.running && now.removed === undefined);
      world.deletePod("web");
      await world.until("gone", () => world.pod("web") === undefined);
      assert.deepEqual(await world.podDirectories(), []);
    } finally {
      await world.close();
    }
  });

  test("logs of a job that is done are still there, and it still has no sessions", async () => {
    const world = await makeWorld();
    try {
      const first = world.start();
      world.api.put(PODS, podManifest("web", { restartPolicy: "Never" }));
      await world.until("runs", () => world.pod("web")?.status?.phase === "Running");
      const path = await engineWrites(world, "result: 42");
      world.runtime.exit("web", 0);
      await world.until("done", () => world.pod("web")?.status?.phase === "Succeeded");
      await systemClock.sleep(20, AbortSignal.timeout(1000));
      world.runtime.removeByHand("web");
      world.runtime.removeSandboxesByHand();
      await rm(path);
      assert.equal(await logOf(await lookUp(first, false)), "result: 42");
      assert.deepEqual(await lookUp(first, true), {
        kind: "notStarted",
        reason: "ContainerCreating",
      });
      await first.stop();
      const second = world.start();
      await world.until("seen", () => second.pods.view.pods().length === 1);
      assert.equal(await logOf(await lookUp(second, false)), "result: 42");
    } finally {
      await world.close();
    }
  });

  test("a log that was not kept is known by its container, as the kubelet's answer names it", async () => {
    const world = await makeWorld();
    try {
      const instance = world.start();
      world.api.put(PODS, podManifest("web", { restartPolicy: "Never" }));
      await world.until("runs", () => world.pod("web")?.status?.phase === "Running");
      world.runtime.exit("web", 0);
      await world.until("done", () => world.pod("web")?.status?.phase === "Succeeded");
      const id = world.pod("web")?.status?.containerStatuses?.[0]?.containerID ?? "";
      world.runtime.removeByHand("web");
      const expected = {
        kind: "found",
        containerID: id.replace("docker://", ""),
        running: false,
        tty: false,
        stdin: false,
        removed: { logPath: undefined },
      };
      assert.deepEqual(await lookUp(instance, false), expected);
    } finally {
      await world.close();
    }
  });
});
