import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../..", import.meta.url));

/** Modules that `file` loads when it is loaded, or on the way: static and dynamic imports, not `import type`. */
function importsOf(file: string): string[] {
  const text = readFileSync(join(root, file), "utf8");
  const patterns = [
    /^import\s+(?!type\b)[^;]*?from\s+"([^"]+)"/gms,
    /^export\s+(?!type\b)[^;]*?from\s+"([^"]+)"/gms,
    /\bimport\(\s*"([^"]+)"\s*\)/g,
    /new URL\(\s*["'`](\.[^"'`]+\.ts)["'`]/g,
  ];
  return patterns
    .flatMap((pattern) => [...text.matchAll(pattern)].map((match) => match[1] ?? ""))
    .filter((specifier) => specifier.startsWith("."))
    .map((specifier) => relative(root, join(root, dirname(file), specifier)));
}

function reachable(start: string): Set<string> {
  const seen = new Set<string>();
  const queue = [start];
  for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
    if (seen.has(file) || !file.endsWith(".ts")) continue;
    seen.add(file);
    queue.push(...importsOf(file));
  }
  return seen;
}

describe("import graph", () => {
  test("`remora run` loads no control plane", () => {
    const files = reachable("src/agent/commands/run.ts");
    assert.ok(files.has("src/kubelet/pods/pods.ts"), "the walk reaches the kubelet");
    assert.deepEqual(
      [...files].filter((file) => file.startsWith("src/controlplane/")),
      [],
    );
  });

  test("the agent's own thread of `remora up` loads no control plane either", () => {
    const files = reachable("src/agent/run-agent.ts");
    assert.deepEqual(
      [...files].filter((file) => file.startsWith("src/controlplane/")),
      [],
    );
  });

  test("there are no barrels: index.ts hides who imports whom", () => {
    assert.deepEqual(globSync("src/**/index.ts", { cwd: root }), []);
  });
});
