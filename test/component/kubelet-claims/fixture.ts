import assert from "node:assert/strict";
import { mkdirSync, readdirSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";

import type { Stored } from "../../../src/api/object.ts";
import type {
  PersistentVolume,
  PersistentVolumeClaim,
  PersistentVolumeSpec,
  Pod,
  PodSpec,
  Volume,
} from "../../../src/api/types.gen.ts";
import type { DiskPluginDeps } from "../../../src/kubelet/volumes/disk-plugin.ts";
import type { HostPrograms } from "../../../src/kubelet/volumes/host-programs.ts";
import { MountTable } from "../../../src/kubelet/volumes/mount-table.ts";
import type { Mounter, MountRequest } from "../../../src/kubelet/volumes/mounter.ts";
import type {
  PreparedVolume,
  VolumePlugin,
  VolumeSpec,
} from "../../../src/kubelet/volumes/plugin.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import type { ExecResult } from "../../../src/lib/exec.ts";
import { MissingProgramError } from "../../../src/kubelet/volumes/host-programs.ts";

export const signal = new AbortController().signal;

interface Listed {
  readonly id: number;
  readonly path: string;
  readonly source: string;
  readonly type: string;
  options: readonly string[];
  superOptions: readonly string[];
}

/** A mount table that exists only in memory, with what the kernel would put into it. */
export class ListedMounts implements Mounter {
  readonly entries: Listed[] = [];
  /** Every mount(8) that was no bind. */
  readonly requests: MountRequest[] = [];
  #lastID = 100;

  async mount(request: MountRequest): Promise<void> {
    this.requests.push(request);
    const { options, source, target, type } = request;
    if (options.includes("remount")) {
      const entry = this.#at(target);
      assert(entry, `${target} is not mounted`);
      const rest = options.filter((option) => !["remount", "bind"].includes(option));
      if (options.includes("bind")) entry.options = [...new Set(rest)];
      else entry.superOptions = rest;
      return;
    }
    assert.equal(this.#at(target), undefined, `${target} is mounted twice`);
    const flags = options.includes("ro") ? ["ro"] : ["rw"];
    this.#add({ path: target, source, type, options: flags, superOptions: flags });
  }

  async mountTmpfs(path: string): Promise<void> {
    this.#add({ path, source: "tmpfs", type: "tmpfs", options: ["rw"], superOptions: ["rw"] });
  }

  async bind(source: string, target: string): Promise<void> {
    assert.equal(this.#at(target), undefined, `${target} is mounted twice`);
    const from = this.#at(source);
    this.#add({
      path: target,
      source: from?.source ?? source,
      type: from?.type ?? "ext4",
      options: ["rw"],
      superOptions: from?.superOptions ?? ["rw"],
    });
  }

  async unmount(path: string): Promise<"unmounted"> {
    const at = this.entries.findLastIndex((entry) => entry.path === path);
    if (at >= 0) this.entries.splice(at, 1);
    return "unmounted";
  }

  async mountPoints(directory: string): Promise<readonly string[]> {
    return this.table()
      .below(directory)
      .map(({ path }) => path);
  }

  table(): MountTable {
    const lines = this.entries.map(
      ({ id, options, path, source, superOptions, type }) =>
        `${id} 1 0:1 / ${path.replaceAll(" ", String.raw`\040`)} ${options.join(",")} - ${type} ${source} ${superOptions.join(",")}`,
    );
    return new MountTable(lines.join("\n"));
  }

  async answers(): Promise<void> {}

  paths(): readonly string[] {
    return this.entries.map(({ path }) => path);
  }

  #at(path: string): Listed | undefined {
    return this.entries.findLast((entry) => entry.path === path);
  }

  #add(entry: Omit<Listed, "id">): void {
    this.#lastID += 1;
    this.entries.push({ id: this.#lastID, ...entry });
  }
}

export function result(exitCode: number, stdout = "", stderr = ""): ExecResult {
  return { exitCode, stdout, stderr };
}

type Script = (argv: readonly string[]) => ExecResult | undefined | Promise<ExecResult | undefined>;

/** Disks of a machine: what they hold, and the programs that look at it. */
export class FakeDisks implements HostPrograms {
  readonly runs: string[][] = [];
  /** What blkid tells of a device; empty for one that holds nothing. */
  readonly held = new Map<string, string>();
  /** Device numbers by real path. */
  readonly numbers = new Map<string, string>();
  readonly kinds = new Map<string, "directory" | "file">();
  readonly unreadable = new Set<string>();
  readonly scripts: Script[] = [];
  readonly mounts: ListedMounts;
  readonly sys: string;

  constructor(mounts: ListedMounts, sys: string) {
    this.mounts = mounts;
    this.sys = sys;
    mkdirSync(join(sys, "block"), { recursive: true });
  }

  async run(argv: readonly [string, ...string[]]): Promise<ExecResult> {
    this.runs.push([...argv]);
    for (const script of this.scripts) {
      const answer = await script(argv);
      if (answer !== undefined) return answer;
    }
    const path = argv.at(-1) ?? "";
    switch (argv[0]) {
      case "stat":
        return this.#stat(path);
      case "dd": {
        const device = argv[1]?.slice(3) ?? "";
        return this.unreadable.has(device) ? result(1, "", "Input/output error") : result(0);
      }
      case "blkid": {
        const held = this.held.get(real(path)) ?? "";
        return held === "" ? result(2) : result(0, `DEVNAME=${path}\n${held}\n`);
      }
      case "fsck":
      case "multipath":
      case "blockdev":
        return result(0);
      case "losetup":
        return this.#losetup(argv);
      default:
        if (argv[0].startsWith("mkfs.")) {
          this.held.set(real(path), `TYPE=${argv[0].slice(5)}`);
          return result(0);
        }
        throw new MissingProgramError(`this machine has no ${argv[0]}`);
    }
  }

  /** Commands that were run, by name. */
  named(name: string): readonly string[] {
    return this.runs.filter(([first]) => first === name).map((argv) => argv.join(" "));
  }

  loops(): readonly string[] {
    return readdirSync(join(this.sys, "block")).filter((name) => name.startsWith("loop"));
  }

  #stat(path: string): ExecResult {
    const bound = this.mounts.entries.findLast((entry) => entry.path === path);
    const number = this.numbers.get(real(bound?.source ?? path));
    if (number !== undefined) return result(0, `61b0 6 ${number}\n`);
    const kind = this.kinds.get(path);
    if (kind === undefined)
      return result(1, "", `stat: cannot statx '${path}': No such file or directory`);
    return result(0, `${kind === "directory" ? "41ed" : "81a4"} 0 0:0\n`);
  }

  #losetup(argv: readonly string[]): ExecResult {
    const block = join(this.sys, "block");
    const path = argv.at(-1) ?? "";
    if (argv.includes("-d")) {
      rmSync(join(block, basename(path)), { recursive: true });
      return result(0);
    }
    const directory = join(block, `loop${this.loops().length}`, "loop");
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, "backing_file"), `${path}\n`);
    return result(0);
  }
}

function real(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

/** A node's directory with disks. */
export interface Place {
  readonly root: string;
  readonly sys: string;
  readonly dev: string;
  readonly mounts: ListedMounts;
  readonly disks: FakeDisks;
  readonly events: { readonly reason: string; readonly message: string }[];
  readonly logs: string[];
  /** Throws at the n-th step from now on; undefined for never. */
  failAt: number | undefined;
  readonly deps: DiskPluginDeps & {
    readonly kernel: { readonly sys: string; readonly dev: string };
  };
}

/** A step hook threw: nothing of the process goes on. */
export class Crash extends Error {}

export async function inPlace(work: (place: Place) => Promise<void>): Promise<void> {
  const top = await mkdtemp(join(tmpdir(), "claims-"));
  const root = join(top, "root");
  const sys = join(top, "sys");
  const dev = join(top, "dev");
  for (const directory of [root, sys, dev, join(dev, "disk/by-path"), join(dev, "disk/by-id")]) {
    mkdirSync(directory, { recursive: true });
  }
  const mounts = new ListedMounts();
  const disks = new FakeDisks(mounts, sys);
  const place: Place = {
    root,
    sys,
    dev,
    mounts,
    disks,
    events: [],
    logs: [],
    failAt: undefined,
    deps: {
      config: { rootDir: root },
      clock: systemClock,
      events: {
        event: (_target, _type, reason, message) => void place.events.push({ reason, message }),
      },
      logger: {
        log: (_level, message) => void place.logs.push(message),
      } as Place["deps"]["logger"],
      mounter: mounts,
      programs: disks,
      step: () => {
        if (place.failAt === undefined) return;
        place.failAt -= 1;
        if (place.failAt < 0) throw new Crash("crashed");
      },
      kernel: { sys, dev },
    },
  };
  try {
    await work(place);
  } finally {
    await rm(top, { recursive: true, force: true });
  }
}

/** Makes a disk of the machine; with a link, also below /dev. */
export function addDisk(place: Place, name: string, link?: string): string {
  const device = join(place.dev, name);
  writeFileSync(device, "");
  place.disks.numbers.set(device, `8:${name.codePointAt(name.length - 1)?.toString(16) ?? "0"}`);
  if (link !== undefined) symlinkSync(device, join(place.dev, link));
  return device;
}

export function pod(uid: string, spec: Partial<PodSpec> = {}): AssignedPod {
  return {
    metadata: { name: `pod-${uid}`, namespace: "default", uid, resourceVersion: "1" },
    spec: { containers: [{ name: "main" }], ...spec },
  } satisfies Stored<Pod>;
}

/** A volume behind a bound claim. */
export function persistent(
  name: string,
  source: PersistentVolumeSpec,
  options: { readonly readOnly?: boolean; readonly annotations?: Record<string, string> } = {},
): VolumeSpec {
  const claim: Stored<PersistentVolumeClaim> = {
    metadata: { name: "claim", namespace: "default", uid: "claim-1", resourceVersion: "1" },
    spec: { volumeName: name },
    status: { phase: "Bound" },
  };
  const volume: Stored<PersistentVolume> = {
    metadata: {
      name,
      uid: "volume-1",
      resourceVersion: "1",
      ...(options.annotations === undefined ? {} : { annotations: options.annotations }),
    },
    spec: source,
  };
  return {
    name: "data",
    volume: { name: "data", persistentVolumeClaim: { claimName: "claim" } },
    persistent: { claim, volume },
    readOnly: options.readOnly ?? false,
  };
}

export function inline(volume: Volume): VolumeSpec {
  return { name: volume.name, volume, readOnly: false };
}

/** Where the core would let a plug-in work. */
export function volumePath(
  place: Place,
  plugin: VolumePlugin,
  spec: VolumeSpec,
  uid: string,
): string {
  const { persistent: behind } = spec;
  const kind = behind?.volume.spec?.volumeMode === "Block" ? "volumeDevices" : "volumes";
  const name = behind?.volume.metadata?.name ?? spec.name;
  return join(place.root, "pods", uid, kind, plugin.directory, name);
}

export async function setUp(
  place: Place,
  plugin: VolumePlugin,
  spec: VolumeSpec,
  owner: AssignedPod = pod("a"),
): Promise<PreparedVolume> {
  const path = volumePath(place, plugin, spec, owner.metadata.uid);
  mkdirSync(dirname(path), { recursive: true });
  const addresses = { podIPs: [], hostIPs: [] };
  return plugin.setUp(spec, { pod: owner, addresses, path, signal });
}

/** What the core does to take a volume down. */
export async function tearDown(
  place: Place,
  plugin: VolumePlugin,
  spec: VolumeSpec,
  uid = "a",
): Promise<void> {
  const path = volumePath(place, plugin, spec, uid);
  await plugin.tearDown?.({ podUID: uid, name: basename(path), path }, signal);
  for (const below of await place.mounts.mountPoints(path)) await place.mounts.unmount(below);
  rmSync(path, { recursive: true, force: true });
}
