import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { everyPage } from "./every-family.ts";

const docs = readFileSync(
  fileURLToPath(new URL("../../../docs/metrics.md", import.meta.url)),
  "utf8",
);

/** Names in the table below the heading of a page, with their types. */
function documented(page: string): ReadonlyMap<string, string> {
  const section = docs.split(/^## /m).find((part) => part.startsWith(`\`${page}\`\n`));
  assert.ok(section !== undefined, `docs/metrics.md has no section ${page}`);
  const rows = section.matchAll(/^\| `(\w+)` \| (\w+) \|/gm);
  return new Map([...rows].map(([, name = "", type = ""]) => [name, type]));
}

test("docs/metrics.md has every family of every page, and no other", async () => {
  for (const [page, families] of await everyPage()) {
    const served = [...families.values()].map(({ name, type }) => [name, type] as const);
    assert.deepEqual(
      Object.fromEntries(documented(page)),
      Object.fromEntries(served),
      `docs/metrics.md differs from ${page}`,
    );
  }
});
