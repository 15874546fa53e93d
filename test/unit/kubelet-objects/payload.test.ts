import assert from "node:assert/strict";
import { test } from "node:test";

import * as fc from "fast-check";

import {
  checkPayload,
  checkPayloadPath,
  keyFiles,
  type Payload,
  VolumeError,
} from "../../../src/kubelet/volumes/payload.ts";

const refused: readonly (readonly [string, RegExp])[] = [
  ["", /^invalid path: must not be empty: ""$/],
  ["/etc/passwd", /^invalid path: must be relative path: \/etc\/passwd$/],
  ["a/../b", /^invalid path: must not contain '\.\.': a\/\.\.\/b$/],
  ["..", /^invalid path: must not contain '\.\.': \.\.$/],
  ["..data/x", /^invalid path: must not start with '\.\.': \.\.data\/x$/],
  ["./..data", /^invalid path: must not start with '\.\.': \.\/\.\.data$/],
  ["..2026_01_01", /must not start with '\.\.'/],
  [".", /must not be the volume itself/],
  ["./", /must not be the volume itself/],
  ["a\0b", /must not contain NUL: "a\\u0000b"/],
  [
    `a/${"n".repeat(256)}`,
    /^invalid path: filenames must be less than or equal to 255 characters$/,
  ],
  ["ä".repeat(128), /filenames must be less than or equal to 255 characters/],
  ["a/".repeat(2049), /^invalid path: must be less than or equal to 4096 characters$/],
];

for (const [path, message] of refused) {
  test(`the path ${JSON.stringify(path).slice(0, 30)} is refused`, () => {
    assert.throws(
      () => checkPayloadPath(path),
      (error: unknown) => error instanceof VolumeError && message.test(error.message),
    );
  });
}

test("odd names that a file may have are kept", () => {
  for (const path of ["new\nline", "a..", "a/..b", "...", "-rf", "ä", "n".repeat(255), " "]) {
    if (path === "...") assert.throws(() => checkPayloadPath(path), VolumeError);
    else assert.equal(checkPayloadPath(path), path);
  }
});

test("paths are cleaned", () => {
  assert.equal(checkPayloadPath("./a//b/./c/"), "a/b/c");
});

test("whatever passes stays in the volume and out of the writer's way", () => {
  const part = fc.oneof(
    fc.constantFrom("..", ".", "", "..data", "..data_tmp", "a", "b", "\0", "\n", "~", "-"),
    fc.string({ maxLength: 6 }),
  );
  fc.assert(
    fc.property(fc.array(part, { maxLength: 6 }), (parts) => {
      let path: string;
      try {
        path = checkPayloadPath(parts.join("/"));
      } catch (error) {
        assert(error instanceof VolumeError);
        return;
      }
      const names = path.split("/");
      assert(names.every((name) => name !== "" && name !== "." && name !== ".."));
      assert(!path.startsWith("/") && !path.startsWith("..") && !path.includes("\0"));
    }),
    { verbose: 1 },
  );
});

function payload(...paths: readonly string[]): Payload {
  return new Map(paths.map((path) => [path, { content: Buffer.alloc(0), mode: 0o644 }]));
}

test("a path that is a file for one source and a directory for another is refused", () => {
  checkPayload(payload("a", "b/c", "b/d", "ab/c"));
  for (const paths of [
    ["a", "a/b"],
    ["a/b/c/d", "a/b"],
  ]) {
    assert.throws(() => checkPayload(payload(...paths)), /is below the file a/);
  }
});

test("keys become files, items choose and name them, a missing one is told in the kind's words", () => {
  const data = new Map([
    ["a", Buffer.from("1")],
    ["b", Buffer.from("2")],
  ]);
  assert.deepEqual([...keyFiles(data, {}, 0o400).keys()], ["a", "b"]);
  const items = [
    { key: "a", path: "x/y", mode: 0o600 },
    { key: "a", path: "z" },
  ];
  const found = keyFiles(data, { items }, 0o440);
  assert.deepEqual(
    [...found].map(([path, { mode }]) => [path, mode]),
    [
      ["x/y", 0o600],
      ["z", 0o440],
    ],
  );
  const missing = { items: [{ key: "no", path: "p" }] };
  assert.throws(() => keyFiles(data, missing, 0, "ConfigMap"), {
    message: "configmap references non-existent config key: no",
  });
  assert.throws(() => keyFiles(data, missing, 0, "Secret"), {
    message: "references non-existent secret key: no",
  });
  assert.equal(keyFiles(data, { ...missing, optional: true }, 0, "Secret").size, 0);
});
