import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../..", import.meta.url));

/** `code class` of every error class in the sources, with the file that holds it. */
function declared(): Map<string, string> {
  const found = new Map<string, string>();
  for (const file of globSync("src/**/*.ts", { cwd: root })) {
    const text = readFileSync(join(root, file), "utf8");
    const parts = text.split(/^(?:export )?class /m).slice(1);
    for (const part of parts) {
      const code = /^ {2}(?:override )?readonly code = "(REMORA_[A-Z_]+)"/m.exec(part)?.[1];
      const name = /^\w+/.exec(part)?.[0];
      if (code === undefined || name === undefined) continue;
      assert.equal(found.get(`${code} ${name}`), undefined, `${code} is declared twice`);
      found.set(`${code} ${name}`, file);
    }
  }
  return found;
}

function documented(): string[] {
  const text = readFileSync(join(root, "docs/errors.md"), "utf8");
  return [...text.matchAll(/^\| `(REMORA_[A-Z_]+)` \| `(\w+)` \| (.+) \|$/gm)].map((row) => {
    const cells = (row[3] ?? "").split(" | ");
    assert.ok(
      cells.length === 3 && cells.every((cell) => cell.trim() !== ""),
      `${row[1]} needs where, meaning and remedy`,
    );
    return `${row[1]} ${row[2]}`;
  });
}

describe("docs/errors.md", () => {
  test("lists exactly the error codes and classes of the sources, each once", () => {
    const sources = [...declared().keys()];
    assert.ok(sources.length >= 20, "the search still finds the classes");
    assert.deepEqual(documented().toSorted(), sources.toSorted());
  });

  test("no two classes share a code", () => {
    const codes = [...declared().keys()].map((entry) => entry.split(" ")[0] ?? "");
    assert.deepEqual(codes.toSorted(), [...new Set(codes)].toSorted());
  });
});
