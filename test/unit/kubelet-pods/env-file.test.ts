import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { assert as check, property, string } from "fast-check";

import { type EnvFileLookup, lookUpInEnvFile } from "../../../src/kubelet/spec/env-file.ts";
import {
  containerEnvironment,
  type EnvFile,
  type EnvSource,
} from "../../../src/kubelet/spec/env.ts";
import { container, pod } from "./builders.ts";

const found = (value: string): EnvFileLookup => ({ kind: "found", value });
const missing: EnvFileLookup = { kind: "missing" };
const malformed = (line: number, problem: string): EnvFileLookup => ({
  kind: "malformed",
  line,
  problem,
});

describe("lookUpInEnvFile finds A in", () => {
  const cases: readonly (readonly [string, EnvFileLookup])[] = [
    ["", missing],
    ["A='x'", found("x")],
    ["A='x'\n", found("x")],
    ["\n  \t\n# A='no'\n \tA='x'\r\n", found("x")],
    ["A='x' # why\n", found("x")],
    ["A='x'#y\n", found("x")],
    ["A='$B \\n \"q\" # no comment'\n", found('$B \\n "q" # no comment')],
    ["A='one\n two\n\nthree'\nB='y'\n", found("one\n two\n\nthree")],
    ["B='=A='\nA='x'\n", found("x")],
    ["B='\nA=\n'\nA='x'\n", found("x")],
    ["A='first'\nA='second'\n", found("first")],
    ["A='x'\nthis line is never read", found("x")],
    ["A=''\n", missing],
    ["A= 'x'\n", missing],
    ["AA='x'\nB='A'\n", missing],
    ["export A='x'\n", missing],
    ["A\n", malformed(1, "missing '='")],
    ["\n='x'\n", malformed(2, "empty variable name")],
    ["A ='x'\n", malformed(1, "whitespace before '=' is not allowed")],
    ["A=x\n", malformed(1, "value must be enclosed in single quotes")],
    ['A="x"\n', malformed(1, "value must be enclosed in single quotes")],
    ["A=\n", malformed(1, "value must be enclosed in single quotes")],
    ["A='x'y\n", malformed(1, "unexpected content after closing quote")],
    ["B='y'\nA='x\n'y'\n", malformed(3, "unexpected content after closing quote")],
    ["B='y'\nA='x\n\n", malformed(2, "unclosed single quote")],
  ];
  for (const [text, expected] of cases) {
    test(JSON.stringify(text), () => {
      assert.deepEqual(lookUpInEnvFile(text, "A"), expected);
    });
  }
  test("a value of at most 32 KiB", () => {
    assert.deepEqual(lookUpInEnvFile(`A='${"x".repeat(32_768)}'`, "A").kind, "found");
    assert.deepEqual(
      lookUpInEnvFile(`A='${"ä".repeat(16_385)}'`, "A"),
      malformed(1, "the value is longer than 32768 bytes"),
    );
  });
  test("any text without a quote in it comes back as it was", () => {
    check(
      property(string({ minLength: 1 }), (text) => {
        const value = text.replaceAll("'", "").replaceAll("\r", "");
        const expected = value === "" ? missing : found(value);
        assert.deepEqual(lookUpInEnvFile(`B='${value}'\nA='${value}'\n`, "A"), expected);
      }),
    );
  });
});

describe("a variable from a file", () => {
  const valueFrom = { fileKeyRef: { volumeName: "v", path: "e.env", key: "K" } };
  const optional = { fileKeyRef: { ...valueFrom.fileKeyRef, optional: true } };
  const file = "/pods/u/volumes/kubernetes.io~empty-dir/v/e.env";
  const source = (content: EnvFile): EnvSource => ({
    configMap: () => undefined,
    secret: () => undefined,
    services: new Map(),
    addresses: { podIPs: [], hostIPs: [] },
    allocatable: {},
    file: (volumeName, path) =>
      volumeName === "v" && path === "e.env" ? content : { kind: "noVolume" },
  });
  const environment = (
    from: typeof valueFrom | typeof optional,
    content: EnvFile,
  ): ReadonlyMap<string, string> => {
    const env = [
      { name: "A", valueFrom: from },
      { name: "B", value: "<$(A)>" },
    ];
    return containerEnvironment(pod(), container("web", { env }), source(content));
  };
  const text = (content: string): EnvFile => ({ kind: "text", path: file, text: content });

  test("is what the key is given there, and later variables may refer to it", () => {
    const result = environment(valueFrom, text("K='k'\n"));
    assert.deepEqual(
      [...result],
      [
        ["A", "k"],
        ["B", "<k>"],
      ],
    );
  });
  test("that is optional is left out without its key or its file", () => {
    for (const content of [text("X='k'\n"), { kind: "missing", path: file } as const]) {
      assert.deepEqual([...environment(optional, content)], [["B", "<$(A)>"]]);
    }
  });
  const refusals: readonly (readonly [string, typeof valueFrom, EnvFile, string])[] = [
    [
      "no key",
      valueFrom,
      text("X='k'"),
      `environment variable key "K" not found in file "${file}"`,
    ],
    ["no file", valueFrom, { kind: "missing", path: file }, "couldn't parse env file"],
    ["a line of another form", optional, text("K=k"), "couldn't parse env file"],
    [
      "a file that cannot be read",
      optional,
      { kind: "unreadable", path: file, problem: "too large" },
      "couldn't parse env file",
    ],
    [
      "no such volume",
      { fileKeyRef: { ...valueFrom.fileKeyRef, volumeName: "w" } },
      text(""),
      'cannot find the volume "w" referenced by FileKeyRef',
    ],
  ];
  for (const [name, from, content, message] of refusals) {
    test(`with ${name} keeps the container from starting: ${message}`, () => {
      assert.throws(() => environment(from, content), { name: "ContainerConfigError", message });
    });
  }
  test("counts only when the variable has no value of its own", () => {
    const env = [{ name: "A", value: "own", valueFrom }];
    const result = containerEnvironment(pod(), container("web", { env }), source(text("")));
    assert.deepEqual([...result], [["A", "own"]]);
  });
});
