import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";

import { resolveUser } from "../../../src/runtime/docker/image-accounts.ts";
import {
  classifyPullError,
  isImageOf,
  parseImage,
  parsePullLine,
} from "../../../src/runtime/docker/image-records.ts";
import { registryAuthHeader } from "../../../src/runtime/docker/images.ts";
import { pauseImageName, pauseProgram } from "../../../src/runtime/docker/pause-image.ts";
import { formatReference, parseReference } from "../../../src/runtime/docker/reference.ts";
import { firstTarFile, tarFile } from "../../../src/runtime/docker/tar.ts";
import { isRuntimeFailure } from "../../../src/runtime/errors.ts";
import type { LinuxSecurityContext } from "../../../src/runtime/types.ts";

const hex = "a".repeat(64);

describe("parseReference", () => {
  const good = [
    ["busybox", "docker.io/library/busybox:latest"],
    ["busybox:1.36", "docker.io/library/busybox:1.36"],
    ["user/app", "docker.io/user/app:latest"],
    ["docker.io/busybox", "docker.io/library/busybox:latest"],
    ["index.docker.io/library/busybox", "docker.io/library/busybox:latest"],
    ["localhost/app", "localhost/app:latest"],
    ["registry:5000/app:v1", "registry:5000/app:v1"],
    ["quay.io/a/b/c:1.0_x", "quay.io/a/b/c:1.0_x"],
    ["[::1]:5000/app", "[::1]:5000/app:latest"],
    [`app@sha256:${hex}`, `docker.io/library/app@sha256:${hex}`],
    [`app:1@sha256:${hex}`, `docker.io/library/app@sha256:${hex}`],
    [`sha256:${hex}`, `sha256:${hex}`],
    [hex, `sha256:${hex}`],
    ["deadbeef", "docker.io/library/deadbeef:latest"],
  ] as const;
  for (const [text, canonical] of good) {
    it(`reads ${text.slice(0, 40)} as ${canonical.slice(0, 40)}`, () => {
      assert.equal(formatReference(parseReference(text)), canonical);
    });
  }

  it("refuses what is no reference, for good", () => {
    for (const text of [
      "",
      "UPPER",
      "a//b",
      "a:b:c",
      "app:",
      "app@sha256:12",
      "-x",
      "a b",
      "a/B",
    ]) {
      assert.throws(
        () => parseReference(text),
        (error) =>
          isRuntimeFailure(error, "InvalidSpec") && /couldn't parse image/.test(String(error)),
        text,
      );
    }
  });
});

describe("isImageOf", () => {
  const image = parseImage({
    Id: `sha256:${hex}`,
    RepoTags: ["busybox:1.36", "<none>:<none>"],
    RepoDigests: null,
    Size: 5,
    Config: { User: "1000:5", StopSignal: "" },
  });

  it("is not taken in by a name that is the beginning of an image id", () => {
    assert.equal(isImageOf(image, parseReference("aaaaaa")), false);
    assert.equal(isImageOf(image, parseReference("docker.io/library/busybox:1.36")), true);
    assert.equal(isImageOf(image, parseReference(hex)), true);
  });

  it("reads user, stop signal and tags", () => {
    assert.deepEqual(image.user, { uid: 1000 });
    assert.equal(image.stopSignal, undefined);
    assert.deepEqual(image.tags, ["busybox:1.36"]);
  });
});

describe("the pull stream", () => {
  it("tells errors from progress and from waiting", () => {
    assert.deepEqual(parsePullLine('{"errorDetail":{"message":"x"},"error":"x"}'), {
      kind: "error",
      message: "x",
    });
    assert.deepEqual(parsePullLine('{"error":"old"}'), { kind: "error", message: "old" });
    assert.equal(parsePullLine('{"status":"Downloading","progressDetail":{}}').kind, "progress");
    assert.equal(parsePullLine('{"status":"Retrying in 5 seconds"}').kind, "idle");
    assert.equal(parsePullLine("garbage").kind, "idle");
  });

  it("tells who is to blame", () => {
    const cases = [
      ["manifest for busybox:nope not found: manifest unknown", "notFound"],
      ["pull access denied for x, repository does not exist or may require login", "auth"],
      ["Get https://r/v2/: unauthorized: authentication required", "auth"],
      ["Get https://r/v2/: dial tcp: lookup r: no such host", "network"],
      ["received unexpected HTTP status: 500 Internal Server Error", "registry"],
      // Where containerd keeps the images.
      ['failed to resolve reference "r/a:1": r/a:1: not found', "notFound"],
      [
        'unknown: failed to resolve reference "r/a:1": unexpected status from HEAD request to http://r/v2/a/manifests/1: 401 Unauthorized',
        "auth",
      ],
      [
        'failed to resolve reference "r/a:1": failed to do request: Head "https://r/v2/a/manifests/1": dial tcp 192.0.2.1:443: connect: connection refused',
        "network",
      ],
      [
        'failed commit on ref "manifest-sha256:1": commit failed: unexpected commit digest sha256:2, expected sha256:1: failed precondition',
        "registry",
      ],
    ] as const;
    for (const [message, problem] of cases) assert.equal(classifyPullError(message), problem);
  });
});

describe("registryAuthHeader", () => {
  it("is URL-safe base64 of what is set, and an empty object when anonymous", () => {
    assert.equal(registryAuthHeader(undefined), "e30=");
    const header = registryAuthHeader({ username: "u", password: "???>>>" });
    assert.match(header, /^[\w=-]+$/);
    const text = Buffer.from(header, "base64url").toString();
    assert.deepEqual(JSON.parse(text), { username: "u", password: "???>>>" });
  });
});

describe("resolveUser", () => {
  const base: LinuxSecurityContext = {
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
  const accounts = {
    user: "web:50",
    passwd: "root:x:0:0::/:/bin/sh\nweb:x:1000:1000::/:/bin/sh\nbroken\n",
    group: "root:x:0:\nmedia:x:3000:other,web\n",
  };
  const strict = { supplementalGroupsPolicy: "Strict" as const };
  // Name, what the pod sets, what the engine is told, who runs then: uid, gid, groups.
  const cases = [
    ["the image's group takes its memberships away from the engine", {}, "web:50", ["3000"]],
    ["Strict keeps user and group of the image", strict, "web:50", []],
    [
      "Strict takes the group from passwd, not the members",
      { ...strict, runAsUser: 1000 },
      "1000:1000",
      [],
    ],
    [
      "Strict gives an unknown user group 0",
      { ...strict, runAsUser: 77, supplementalGroups: [5] },
      "77:0",
      ["5"],
    ],
    [
      "Merge with a group adds the memberships",
      { runAsUser: 1000, runAsGroup: 9, supplementalGroups: [3000, 4] },
      "1000:9",
      ["3000", "4"],
    ],
    ["Merge with a user alone leaves the merging to the engine", { runAsUser: 1000 }, "1000", []],
    ["a group alone keeps the user", { runAsGroup: 9 }, "web:9", ["3000"]],
  ] as const;
  const identities: readonly (readonly [number, number, readonly number[]])[] = [
    [1000, 50, [50, 3000]],
    [1000, 50, [50]],
    [1000, 1000, [1000]],
    [77, 0, [0, 5]],
    [1000, 9, [9, 3000, 4]],
    [1000, 1000, [1000, 3000]],
    [1000, 9, [9, 3000]],
  ];
  for (const [index, [name, over, user, groups]] of cases.entries()) {
    it(name, () => {
      const [uid, gid, supplementalGroups] = identities[index] ?? [];
      assert.deepEqual(resolveUser({ ...base, ...over }, accounts), {
        user,
        groups,
        identity: { uid, gid, supplementalGroups },
      });
    });
  }
  it("leaves everything to the engine where the accounts cannot be read", () => {
    const given = { ...base, runAsUser: 5, supplementalGroups: [6] };
    assert.deepEqual(resolveUser(given, undefined), { user: "5", groups: ["6"] });
    assert.deepEqual(resolveUser(base, undefined), { user: "", groups: [] });
  });
  it("finds a group by its name, and knows nothing of a user that is not in the image", () => {
    const named = { ...accounts, user: "web:media" };
    assert.equal(resolveUser(base, named).identity?.gid, 3000);
    assert.deepEqual(resolveUser(base, { ...accounts, user: "ghost" }), {
      user: "",
      groups: [],
      identity: undefined,
    });
    assert.deepEqual(resolveUser({ ...base, runAsGroup: 9 }, { ...accounts, user: "ghost" }), {
      user: "ghost:9",
      groups: [],
    });
  });
});

describe("the pause image", () => {
  for (const arch of ["amd64", "arm64"]) {
    it(`is a whole static ELF program for ${arch}`, () => {
      const program = pauseProgram(arch);
      assert.equal(program.length, 232);
      assert.equal(program.toString("latin1", 1, 4), "ELF");
      assert.equal(program.readUInt16LE(18), arch === "amd64" ? 62 : 183);
      assert.equal(program.readBigUInt64LE(64 + 32), 232n, "file size in the program header");
    });
  }

  it("has a name that follows its content", () => {
    const hash = createHash("sha256").update(pauseProgram("amd64")).digest("hex");
    assert.equal(pauseImageName("amd64"), `remora.local/pause:${hash.slice(0, 12)}`);
    assert.throws(() => pauseImageName("mips"), /architecture "mips"/);
  });
});

describe("tarFile", () => {
  it("makes an archive that its reader understands, with a right checksum", () => {
    const archive = tarFile("pause", Buffer.from("hello"), 0o755);
    assert.equal(archive.length % 512, 0);
    assert.equal(firstTarFile(archive)?.toString(), "hello");
    const header = Buffer.from(archive.subarray(0, 512));
    const sum = Number.parseInt(header.toString("latin1", 148, 154), 8);
    header.fill(" ", 148, 156);
    assert.equal(
      sum,
      header.reduce((total, byte) => total + byte, 0),
    );
  });
});
