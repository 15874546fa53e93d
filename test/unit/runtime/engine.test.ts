import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { isLoaded } from "../../../src/runtime/docker/app-armor.ts";
import { boundingSet } from "../../../src/runtime/docker/capabilities.ts";
import { negotiate } from "../../../src/runtime/docker/client.ts";
import { engineError } from "../../../src/runtime/docker/errors.ts";
import { Gate } from "../../../src/runtime/docker/gate.ts";
import { describeHost } from "../../../src/runtime/docker/host-probe.ts";

describe("negotiate", () => {
  it("speaks the lower of both newest versions", () => {
    const version = (newest: string, oldest: string): number =>
      negotiate({ ApiVersion: newest, MinAPIVersion: oldest, Version: "x", Arch: "amd64" }).api;
    assert.equal(version("1.41", "1.12"), 41);
    assert.equal(version("1.52", "1.44"), 52);
    assert.equal(version("1.60", "1.44"), 55);
  });

  it("refuses what is too old or too new, with the remedy", () => {
    assert.throws(() => negotiate({ ApiVersion: "1.40" }), /needs 1\.41/);
    assert.throws(() => negotiate({ ApiVersion: "1.60", MinAPIVersion: "1.56" }), /update Remora/);
    assert.throws(() => negotiate({ ApiVersion: "two" }), /needs 1\.41/);
    assert.throws(() => negotiate([]), /version: expected an object/);
  });
});

describe("engineError", () => {
  const cases = [
    ["create container", 404, "No such image: x:1", "ImageMissing"],
    ["start container", 404, "No such container: x", "NotFound"],
    [
      "create container",
      409,
      'Conflict. The name "/a" is already in use by container "ab"',
      "AlreadyExists",
    ],
    ["start container", 409, "cannot join network of a non running container: x", "WrongState"],
    ["create container", 400, "invalid mount config", "InvalidSpec"],
    ["start container", 400, 'exec: "x": executable file not found in $PATH', "StartFailed"],
    ["start container", 500, "unable to find user nobody2", "StartFailed"],
    ["start container", 500, "connection error: transport is closing", "Internal"],
    ["create container", 500, "boom", "Internal"],
    ["attach", 501, "not implemented", "Unsupported"],
  ] as const;
  for (const [op, status, message, failure] of cases) {
    it(`${op}, ${status}, "${message.slice(0, 30)}" is ${failure}`, () => {
      assert.equal(engineError({ op, status, message }).failure, failure);
    });
  }

  it("keeps the shell's exit codes of failed starts", () => {
    const code = (message: string): number | undefined =>
      engineError({ op: "start container", status: 400, message }).exitCode;
    assert.equal(code("stat /x: no such file or directory"), 127);
    assert.equal(code('exec: "/etc": permission denied'), 126);
    assert.equal(code("unable to find user x"), 128);
  });
});

describe("describeHost", () => {
  const version = { name: "docker", version: "20.10", api: 41, arch: "amd64" };
  const info = {
    CgroupDriver: "systemd",
    CgroupVersion: "2",
    DockerRootDir: "/d",
    Runtimes: { runc: {} },
    SecurityOptions: ["name=seccomp,profile=default"],
    LiveRestoreEnabled: true,
  };

  it("has no warnings on a complete host", () => {
    const { info: found } = describeHost(version, info, {
      boundingCapabilities: undefined,
      appArmor: true,
    });
    assert.deepEqual(found.warnings, []);
    assert.equal(found.features.has("privileged"), true);
    assert.equal(found.features.has("imageVolumes"), false);
    const local = { boundingCapabilities: undefined, appArmor: true };
    const layered = describeHost(version, { ...info, Driver: "overlay2" }, local).info;
    assert.equal(layered.features.has("imageVolumes"), true);
    assert.equal(found.cgroupVersion, 2);
    assert.deepEqual(found.handlers, ["", "runc"]);
  });

  it("says what a limited host cannot do", () => {
    const found = describeHost(
      version,
      {
        ...info,
        LiveRestoreEnabled: false,
        SecurityOptions: ["name=seccomp,profile=unconfined"],
        Warnings: ["WARNING: No swap limit support"],
      },
      { boundingCapabilities: new Set(["CHOWN"]), appArmor: false },
    ).info;
    assert.equal(found.features.has("privileged"), false);
    assert.equal(found.features.has("negativeOomScoreAdj"), false);
    const text = found.warnings.join("\n");
    for (const part of [/SYS_RESOURCE/, /live-restore/, /seccomp/, /No swap limit/]) {
      assert.match(text, part);
    }
  });
});

describe("images as volumes", () => {
  const local = { boundingCapabilities: undefined, appArmor: true };
  const features = (api: number, info: object): string[] =>
    [
      ...describeHost({ name: "docker", version: "x", api, arch: "amd64" }, info, local).info
        .features,
    ].filter((name) => name.startsWith("image"));

  it("are mounted by engines from API 1.48 on, whatever stores their layers", () => {
    assert.deepEqual(features(47, { Driver: "overlayfs" }), []);
    assert.deepEqual(features(47, { Driver: "overlay2" }), ["imageVolumes"]);
    assert.deepEqual(features(48, { Driver: "overlayfs" }), ["imageMounts", "imageVolumes"]);
    assert.deepEqual(features(51, { Driver: "overlay2" }), ["imageMounts", "imageVolumes"]);
  });

  const root = (Containerd: object, kind: string): string | undefined =>
    describeHost(
      { name: "docker", version: "29", api: 51, arch: "amd64" },
      { DockerRootDir: "/d", DriverStatus: [["driver-type", kind]], Containerd },
      local,
    ).info.imageRootDir;

  it("lie where containerd has them when the engine leaves them to it", () => {
    const snapshotter = "io.containerd.snapshotter.v1";
    assert.equal(
      root({ Address: "/var/run/docker/containerd/containerd.sock" }, snapshotter),
      "/d/containerd/daemon",
    );
    assert.equal(
      root({ Address: "/run/containerd/containerd.sock" }, snapshotter),
      "/var/lib/containerd",
    );
    assert.equal(root({ Address: "/run/containerd/containerd.sock" }, "extfs"), undefined);
    assert.equal(root({}, ""), undefined);
  });
});

describe("recursive read-only mounts", () => {
  const local = { boundingCapabilities: undefined, appArmor: true };
  const features = (options: readonly string[]): object => ({
    status: {
      "org.opencontainers.runtime-spec.features": JSON.stringify({ mountOptions: options }),
    },
  });
  const Runtimes = {
    runc: features(["ro", "rro"]),
    old: features(["ro"]),
    "io.containerd.runc.v2": features(["rro"]),
  };
  const describe44 = (info: object, api = 44): ReturnType<typeof describeHost>["info"] =>
    describeHost({ name: "docker", version: "25", api, arch: "amd64" }, info, local).info;

  it("are a property of each handler, of the default one under its empty name too", () => {
    const found = describe44({ Runtimes });
    assert.deepEqual(
      [...(found.recursiveReadOnlyHandlers ?? [])],
      ["runc", "io.containerd.runc.v2", ""],
    );
    assert.equal(found.features.has("recursiveReadOnlyMounts"), true);
    const other = describe44({ Runtimes, DefaultRuntime: "old" });
    assert.equal(other.recursiveReadOnlyHandlers?.has(""), false);
    assert.equal(other.features.has("recursiveReadOnlyMounts"), false);
  });
  it("are nobody's before API 1.44", () => {
    assert.deepEqual([...(describe44({ Runtimes }, 43).recursiveReadOnlyHandlers ?? [])], []);
  });
});

describe("security modules of the host", () => {
  it("are features: AppArmor by the kernel's word, SELinux by the engine's", () => {
    const version = { name: "docker", version: "25", api: 44, arch: "amd64" };
    const of = (options: readonly string[], appArmor: boolean): ReadonlySet<string> =>
      describeHost(
        version,
        { SecurityOptions: options },
        { boundingCapabilities: undefined, appArmor },
      ).info.features;
    assert.equal(of(["name=selinux"], false).has("seLinux"), true);
    assert.equal(of([], false).has("seLinux"), false);
    assert.equal(of([], true).has("appArmor"), true);
    assert.equal(of([], false).has("appArmor"), false);
  });
  it("a profile is loaded when the kernel's list has its very name", () => {
    const list = "docker-default (enforce)\n/usr/bin/man (complain)\na b (x) (enforce)\n";
    for (const name of ["docker-default", "/usr/bin/man", "a b (x)"]) {
      assert.equal(isLoaded(list, name), true, name);
    }
    for (const name of ["docker", "docker-default (enforce)", ""]) {
      assert.equal(isLoaded(list.trim(), name), false, name);
    }
  });
});

describe("a default runtime other than runc", () => {
  it("is not held to the limits that runc meets on this host", () => {
    const version = { name: "docker", version: "20.10", api: 41, arch: "amd64" };
    const local = { boundingCapabilities: new Set(["CHOWN"]), appArmor: false };
    const privileged = (name: string): boolean =>
      describeHost(version, { DefaultRuntime: name }, local).info.features.has("privileged");
    assert.equal(privileged("runc"), false);
    assert.equal(privileged("io.containerd.runc.v2"), false);
    assert.equal(privileged("kata"), true);
  });
});

describe("boundingSet", () => {
  it("reads the mask of /proc/PID/status", () => {
    const set = boundingSet("Name:\tx\nCapBnd:\t000001fffeffffff\n");
    assert.equal(set?.has("SYS_RESOURCE"), false);
    assert.equal(set?.has("CHECKPOINT_RESTORE"), true);
    assert.equal(boundingSet("Name: x"), undefined);
  });
});

describe("Gate", () => {
  it("lets the limit through, then one for each that leaves, in order", async () => {
    const gate = new Gate(1);
    const { signal } = new AbortController();
    const order: number[] = [];
    const enter = async (n: number): Promise<() => void> => {
      const leave = await gate.enter(signal);
      order.push(n);
      return leave;
    };
    const leave = await enter(1);
    const second = enter(2);
    const third = enter(3);
    assert.deepEqual(order, [1]);
    leave();
    leave();
    const leaveSecond = await second;
    assert.deepEqual(order, [1, 2]);
    leaveSecond();
    (await third)();
    assert.deepEqual(order, [1, 2, 3]);
  });

  it("forgets who gave up, and loses no place", async () => {
    const gate = new Gate(1);
    const { signal } = new AbortController();
    const leave = await gate.enter(signal);
    const impatient = new AbortController();
    const waiting = gate.enter(impatient.signal);
    impatient.abort(new Error("enough"));
    await assert.rejects(waiting, /enough/);
    leave();
    (await gate.enter(signal))();
  });
});
