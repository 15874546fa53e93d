import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  array,
  assert as check,
  asyncProperty,
  constantFrom,
  dictionary,
  letrec,
  oneof,
  string,
  tuple,
  uint8Array,
} from "fast-check";

import { composeConfiguration, configurationFlags } from "../../../src/config/configuration.ts";
import { explainJSON, explainText } from "../../../src/config/explain.ts";
import { kubeletShape } from "../../../src/config/kubelet-configuration.ts";
import type { ConfigKind } from "../../../src/config/load.ts";
import type { Raw } from "../../../src/config/raw.ts";
import { readYaml } from "../../../src/config/read-yaml.ts";
import { leavesOf } from "../../../src/config/shape.ts";
import { SetupError } from "../../../src/lib/errors.ts";

/** Ends by itself well before anybody waits for it; fast-check prints the seed of a failure. */
const budget = { interruptAfterTimeLimit: 1500, numRuns: 150 };

const words = leavesOf(kubeletShape).flatMap(([path]) => path.split("."));
const scalars = constantFrom(
  "1",
  "-1",
  "0644",
  "1e9",
  "true",
  "on",
  "~",
  "10s",
  "''",
  '"x"',
  "5%",
  "1Gi",
  "&a",
  "*a",
  "<<",
  "!!int x",
  "[",
  "{a: b}",
  "- c",
  "|",
  "\t",
  "\u0000",
  "#",
  "---",
);
const { tree } = letrec((tie) => ({
  tree: oneof(
    { maxDepth: 4 },
    scalars,
    string({ maxLength: 20 }),
    dictionary(constantFrom(...words), tie("tree") as never, { maxKeys: 4 }),
    array(tie("tree") as never, { maxLength: 4 }),
  ),
}));

/** YAML, more or less: values are put in as they are. */
function yaml(value: unknown, indent = ""): string {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) {
    if (value.length === 0) return "[]";
    return value.map((item) => `\n${indent}- ${yaml(item, `${indent}  `)}`).join("");
  }
  const entries = Object.entries(value as Record<string, unknown>);
  if (entries.length === 0) return "{}";
  return entries
    .map(([key, member]) => `\n${indent}${key}: ${yaml(member, `${indent}  `)}`)
    .join("");
}

async function survives(text: string): Promise<void> {
  let documents;
  try {
    documents = await readYaml(text, "f");
  } catch (error) {
    assert.ok(error instanceof SetupError, String(error));
    assert.match(error.message, /^f(:\d+)?: /);
    return;
  }
  for (const { raw } of documents) {
    for (const kind of [
      "KubeletConfiguration",
      "KubeProxyConfiguration",
      "RemoraConfiguration",
    ] as const) {
      const loaded = {
        documents: new Map<ConfigKind, Raw>([[kind, raw]]),
        troubles: [],
        skipped: [],
      };
      const configuration = composeConfiguration(loaded, []);
      assert.ok(explainText(configuration, true).length > 100);
      JSON.stringify(explainJSON(configuration));
    }
  }
}

describe("a configuration from an enemy", () => {
  test("bytes are a configuration, or refused with their place", async () => {
    await check(
      asyncProperty(uint8Array({ maxLength: 200 }), async (bytes) =>
        survives(new TextDecoder().decode(bytes)),
      ),
      budget,
    );
  });

  test("text is", async () => {
    await check(asyncProperty(string({ maxLength: 200, unit: "binary" }), survives), budget);
  });

  test("known names with odd values are", async () => {
    await check(
      asyncProperty(dictionary(constantFrom(...words), tree, { maxKeys: 6 }), async (value) =>
        survives(yaml(value)),
      ),
      budget,
    );
  });

  test("flags with odd values are", async () => {
    const names = [...configurationFlags().keys()];
    const given = array(
      tuple(
        constantFrom(...names),
        array(oneof(string({ maxLength: 20 }), scalars), { minLength: 1, maxLength: 3 }),
      ),
      { maxLength: 5 },
    );
    await check(
      asyncProperty(given, async (flags) => {
        const loaded = { documents: new Map<ConfigKind, Raw>(), troubles: [], skipped: [] };
        const configuration = composeConfiguration(
          loaded,
          flags.map(([name, texts]) => ({ name, texts })),
        );
        explainText(configuration, true);
      }),
      budget,
    );
  });

  test("names that objects have anyhow are unknown fields", async () => {
    for (const name of ["__proto__", "constructor", "toString", "hasOwnProperty"]) {
      const [document] = await readYaml(
        `${name}: {maxPods: 3}\nevictionHard: {${name}: 5%}\n`,
        "f",
      );
      assert.ok(document !== undefined);
      const loaded = {
        documents: new Map<ConfigKind, Raw>([["KubeletConfiguration", document.raw]]),
        troubles: [],
        skipped: [],
      };
      const { remarks, kubelet } = composeConfiguration(loaded, []);
      assert.deepEqual(
        remarks.map(({ path }) => path),
        ["evictionHard", name],
      );
      assert.equal(kubelet.maxPods, 110);
    }
  });
});
