import assert from "node:assert/strict";
import {
  chmod,
  chown,
  lstat,
  mkdir,
  readdir,
  readFile,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { createServer } from "node:net";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";

import type { Container, HostPathVolumeSource, Volume } from "../../../src/api/types.gen.ts";
import { setUpHostPath } from "../../../src/kubelet/volumes/host-path.ts";
import type { MountRequest } from "../../../src/kubelet/volumes/mounter.ts";
import { MountTable } from "../../../src/kubelet/volumes/mount-table.ts";
import type { PreparedVolume } from "../../../src/kubelet/volumes/plugin.ts";
import { emptyDirPlugin } from "../../../src/kubelet/volumes/plugins/empty-dir.ts";
import { hostPathPlugin } from "../../../src/kubelet/volumes/plugins/host-path.ts";
import { swaplessOptions } from "../../../src/kubelet/volumes/swapless.ts";
import type { StepHook } from "../../../src/kubelet/steps.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import { container, pod } from "../../unit/kubelet-pods/builders.ts";
import { FakeMounter } from "../kubelet-pods/fixture.ts";
import { inTemporary } from "../../fakes/temporary.ts";

const signal = new AbortController().signal;
const gid = 4321;

class RecordingMounter extends FakeMounter {
  readonly requests: string[] = [];

  override async mount(request: MountRequest): Promise<void> {
    this.requests.push(`${request.type} ${request.options.join(",")}`);
    return super.mount(request);
  }

  override async mountTmpfs(path: string, options: readonly string[] = []): Promise<void> {
    this.requests.push(`tmpfs ${options.join(",")}`);
    return super.mountTmpfs(path);
  }
}

interface Given {
  readonly emptyDir?: Volume["emptyDir"];
  readonly pod?: AssignedPod;
  readonly mounter?: FakeMounter;
  readonly step?: StepHook;
}

async function setUp(directory: string, given: Given = {}): Promise<PreparedVolume> {
  const plugin = emptyDirPlugin({
    allocatable: () => ({ memory: "8Gi" }),
    mounter: given.mounter ?? new FakeMounter(),
    step: given.step ?? (() => undefined),
  });
  const volume: Volume = {
    name: "cache",
    ...(given.emptyDir === undefined ? {} : { emptyDir: given.emptyDir }),
  };
  const spec = { name: "cache", volume, readOnly: false };
  assert(plugin.supports(spec));
  return plugin.setUp(spec, {
    pod: given.pod ?? pod(),
    addresses: { podIPs: [], hostIPs: [] },
    path: join(directory, "cache"),
    signal,
  });
}

async function look(path: string): Promise<string> {
  const { gid: group, mode, uid } = await lstat(path);
  return `${uid}:${group} ${(mode & 0o7777).toString(8)}`;
}

const withGroup = pod({ securityContext: { fsGroup: gid } });

test("an emptyDir on the disk is everybody's, and the group's where the pod has one", async () => {
  await inTemporary(async (directory) => {
    const prepared = await setUp(directory);
    assert.deepEqual(prepared, {
      hostPath: join(directory, "cache"),
      readOnly: false,
      ownership: "done",
    });
    assert.equal(await look(prepared.hostPath), "0:0 777");
  });
  await inTemporary(async (directory) => {
    await setUp(directory, { emptyDir: {}, pod: withGroup });
    assert.equal(await look(join(directory, "cache")), `0:${gid} 2777`);
    assert.deepEqual(await readdir(directory), ["cache"]);
  });
});

test("what containers have made of an emptyDir stays, whoever looks again", async () => {
  await inTemporary(async (directory) => {
    const { hostPath } = await setUp(directory, { pod: withGroup });
    await writeFile(join(hostPath, "data"), "kept", { mode: 0o600 });
    await chmod(hostPath, 0o700);
    await chown(hostPath, 7, 8);
    await setUp(directory, { pod: withGroup });
    assert.equal(await look(hostPath), "7:8 700");
    assert.equal(await look(join(hostPath, "data")), `0:${gid} 600`);
    assert.equal(await readFile(join(hostPath, "data"), "utf8"), "kept");
  });
});

test("an emptyDir whose making was cut short is made to its end", async () => {
  await inTemporary(async (directory) => {
    const crash: StepHook = (name) => {
      if (name === "writeVolume") throw new Error("crash");
    };
    await assert.rejects(setUp(directory, { pod: withGroup, step: crash }), /crash/);
    assert(!(await readdir(directory)).includes("cache"), "nobody takes it for finished");
    await setUp(directory, { pod: withGroup });
    assert.equal(await look(join(directory, "cache")), `0:${gid} 2777`);
    assert.deepEqual(await readdir(directory), ["cache"]);
  });
});

test("an emptyDir in memory is as large as the smallest of its limits, and mounted once", async () => {
  const memory = (limit: string): Partial<Container> => ({
    resources: { limits: { memory: limit } },
  });
  const cases: readonly (readonly [Volume["emptyDir"], AssignedPod, string])[] = [
    [{}, pod(), "mode=1777,size=8589934592"],
    [{ sizeLimit: "1Mi" }, pod(), "mode=1777,size=1048576"],
    [{ sizeLimit: "0" }, pod(), "mode=1777,size=8589934592"],
    [
      { sizeLimit: "1Gi" },
      pod({ containers: [container("web", memory("2Mi"))] }),
      "mode=1777,size=2097152",
    ],
    [
      {},
      pod({ containers: [container("web", memory("2Mi")), container("free")] }),
      "mode=1777,size=8589934592",
    ],
    [{ sizeLimit: "1Mi" }, withGroup, `mode=3777,gid=${gid},size=1048576`],
  ];
  for (const [emptyDir, subject, options] of cases) {
    await inTemporary(async (directory) => {
      const mounter = new RecordingMounter();
      const given = { emptyDir: { medium: "Memory", ...emptyDir }, pod: subject, mounter };
      await setUp(directory, given);
      await setUp(directory, given);
      assert.deepEqual(mounter.requests, [`tmpfs ${options}`]);
      // After a reboot the directory is there and the mount is not.
      mounter.mounted.clear();
      await setUp(directory, given);
      assert.equal(mounter.requests.length, 2);
    });
  }
});

test("an emptyDir of huge pages has those that the pod asks for", async () => {
  const asks = (...names: readonly string[]): AssignedPod =>
    pod({
      containers: names.map((name, index) =>
        container(`c${index}`, { resources: { limits: { [name]: "4Mi", memory: "1Gi" } } }),
      ),
    });
  const cases: readonly (readonly [string, AssignedPod, string])[] = [
    ["HugePages", asks("hugepages-2Mi"), "hugetlbfs pagesize=2097152,mode=1777,size=4194304"],
    [
      "HugePages-2Mi",
      asks("hugepages-2Mi", "hugepages-1Gi"),
      "hugetlbfs pagesize=2097152,mode=1777,size=4194304",
    ],
    [
      "HugePages",
      asks("hugepages-2Mi", "hugepages-2048Ki"),
      "hugetlbfs pagesize=2097152,mode=1777,size=4194304",
    ],
  ];
  for (const [medium, subject, request] of cases) {
    await inTemporary(async (directory) => {
      const mounter = new RecordingMounter();
      await setUp(directory, { emptyDir: { medium }, pod: subject, mounter });
      assert.deepEqual(mounter.requests, [request]);
    });
  }
  const refusals: readonly (readonly [string, AssignedPod, string])[] = [
    [
      "HugePages",
      asks("hugepages-2Mi", "hugepages-1Gi"),
      "medium: HugePages can't be used if container requests multiple huge page sizes",
    ],
    [
      "HugePages",
      pod(),
      "medium HugePages: hugePages storage requested, but there is no resource request for huge pages",
    ],
    [
      "HugePages-1Gi",
      asks("hugepages-2Mi"),
      "medium HugePages-1Gi: hugePages storage requested, but there is no resource request for huge pages",
    ],
    ["HugePages-large", asks("hugepages-2Mi"), 'unknown storage medium "HugePages-large"'],
    ["Floppy", pod(), 'unknown storage medium "Floppy"'],
  ];
  for (const [medium, subject, message] of refusals) {
    await inTemporary(async (directory) => {
      const work = setUp(directory, { emptyDir: { medium }, pod: subject });
      await assert.rejects(work, { name: "VolumeError", message });
    });
  }
});

test("a tmpfs stays out of swap from Linux 6.4 on", () => {
  for (const [osrelease, options] of [
    ["6.4.0\n", ["noswap"]],
    ["6.18.44-generic\n", ["noswap"]],
    ["7.0.1", ["noswap"]],
    ["6.3.9", []],
    ["5.15.0-100-generic", []],
    ["", []],
  ] as const) {
    assert.deepEqual(swaplessOptions(osrelease), options, osrelease);
  }
});

/** The types of the API's schema leave out the empty one, and what is none. */
interface AnyHostPath {
  readonly path: string;
  readonly type: string;
}

async function make(source: AnyHostPath): Promise<void> {
  await setUpHostPath(source as HostPathVolumeSource);
}

async function refusal(source: AnyHostPath): Promise<string> {
  try {
    await make(source);
    return "";
  } catch (error) {
    assert(error instanceof Error && error.name === "VolumeError", String(error));
    return error.message;
  }
}

test("each type of hostPath takes what it names and refuses the rest, in the kubelet's words", async () => {
  await inTemporary(async (directory) => {
    const file = join(directory, "file");
    const socket = join(directory, "socket");
    await writeFile(file, "kept");
    const server = createServer().listen(socket);
    await once(server, "listening");
    const there: Readonly<Record<string, string>> = {
      Directory: directory,
      File: file,
      Socket: socket,
      CharDevice: "/dev/null",
    };
    const nouns: Readonly<Record<string, string>> = {
      Directory: "directory",
      DirectoryOrCreate: "directory",
      File: "file",
      FileOrCreate: "file",
      Socket: "socket file",
      CharDevice: "character device",
      BlockDevice: "block device",
    };
    for (const [type, noun] of Object.entries(nouns)) {
      for (const [kind, path] of Object.entries(there)) {
        const fits = type.replace("OrCreate", "") === kind;
        const expected = fits ? "" : `hostPath type check failed: ${path} is not a ${noun}`;
        assert.equal(await refusal({ path, type }), expected, `${type} of a ${kind}`);
      }
      if (type.endsWith("OrCreate")) continue;
      for (const path of [join(directory, "missing"), join(file, "below")]) {
        const expected = `hostPath type check failed: ${path} is not a ${noun}`;
        assert.equal(await refusal({ path, type }), expected);
      }
    }
    for (const path of Object.values(there)) assert.equal(await refusal({ path, type: "" }), "");
    server.close();
    await once(server, "close");
    assert.equal(await readFile(file, "utf8"), "kept");
  });
});

test("a hostPath is made only as its type says", async () => {
  await inTemporary(async (directory) => {
    const at = (name: string): string => join(directory, name);
    await make({ path: at("plain/below"), type: "" });
    await make({ path: at("made/below"), type: "DirectoryOrCreate" });
    await make({ path: at("file"), type: "FileOrCreate" });
    assert.equal(await look(at("plain/below")), "0:0 755");
    assert.equal(await look(at("made/below")), "0:0 755");
    assert.equal(await look(at("file")), "0:0 644");
    await assert.rejects(make({ path: at("no/file"), type: "FileOrCreate" }), {
      code: "ENOENT",
    });
    await assert.rejects(stat(at("no")), { code: "ENOENT" }, "its directory is not made");
  });
});

test("a hostPath that is a link leads where it leads; one to nowhere is left alone", async () => {
  await inTemporary(async (directory) => {
    await mkdir(join(directory, "real"));
    await symlink("real", join(directory, "link"));
    await symlink("nowhere", join(directory, "dangling"));
    assert.equal(await refusal({ path: join(directory, "link"), type: "Directory" }), "");
    const path = join(directory, "dangling");
    for (const type of ["", "DirectoryOrCreate", "FileOrCreate"]) {
      assert.equal(await refusal({ path, type }), `hostPath ${path} is a dangling symbolic link`);
    }
    assert.deepEqual((await readdir(directory)).toSorted(), ["dangling", "link", "real"]);
  });
});

test("paths that climb, relative ones and types that nobody knows are refused", async () => {
  assert.equal(
    await refusal({ path: "/var/../etc", type: "" }),
    "invalid HostPath `/var/../etc`: must not contain '..'",
  );
  assert.equal(await refusal({ path: "etc", type: "" }), "hostPath etc is not an absolute path");
  assert.equal(await refusal({ path: "/tmp", type: "Pipe" }), "Pipe is an invalid volume type");
  // A name with dots is none that climbs.
  await inTemporary(async (directory) => {
    assert.equal(await refusal({ path: join(directory, "..data.."), type: "" }), "");
  });
});

test("a hostPath on a server that may be dead is asked for by another process", async () => {
  class NetworkMounter extends FakeMounter {
    override table(): MountTable {
      return new MountTable("100 1 0:1 / /remote rw - nfs4 server:/ rw");
    }

    override async answers(): Promise<void> {
      throw new Error("it does not answer");
    }
  }
  const plugin = hostPathPlugin({ mounter: new NetworkMounter() });
  const setUpAt = (path: string): Promise<PreparedVolume> => {
    const volume = { name: "v", hostPath: { path, type: "Directory" as const } };
    const spec = { name: "v", volume, readOnly: false };
    assert(plugin.supports(spec));
    const addresses = { podIPs: [], hostIPs: [] };
    return plugin.setUp(spec, { pod: pod(), addresses, path: "/nowhere", signal });
  };
  await assert.rejects(setUpAt("/remote/data"), /it does not answer/);
  assert.deepEqual(await setUpAt("/tmp"), { hostPath: "/tmp", readOnly: false, ownership: "done" });
});
