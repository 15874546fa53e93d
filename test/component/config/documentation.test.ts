import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { configurationDocument } from "../../../scripts/generate-config-docs.ts";
import { readYaml } from "../../../src/config/read-yaml.ts";
import { composeConfiguration } from "../../../src/config/configuration.ts";
import type { ConfigKind } from "../../../src/config/load.ts";
import type { Raw } from "../../../src/config/raw.ts";

test("docs/configuration.md has the fields as they are (npm run generate:docs)", async () => {
  const { current, wanted } = await configurationDocument();
  assert.equal(current, wanted);
});

test("the example of docs/configuration.md is a good configuration", async () => {
  const text = await readFile(new URL("../../../docs/configuration.md", import.meta.url), "utf8");
  const example = /```yaml\n([\s\S]*?)```/.exec(text)?.[1] ?? "";
  const documents = new Map<ConfigKind, Raw>();
  for (const { raw } of await readYaml(example, "example")) {
    assert.equal(raw.kind, "map");
    const kind = raw.entries.get("kind");
    assert.equal(kind?.kind, "scalar");
    const rest = [...raw.entries].filter(([key]) => key !== "kind" && key !== "apiVersion");
    documents.set(kind.text as ConfigKind, { ...raw, entries: new Map(rest) });
  }
  assert.deepEqual([...documents.keys()], ["RemoraConfiguration", "KubeletConfiguration"]);
  const configuration = composeConfiguration({ documents, troubles: [], skipped: [] }, []);
  assert.deepEqual(configuration.remarks, []);
});
