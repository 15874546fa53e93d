import assert from "node:assert/strict";
import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const pages = ["*.md", "docs/**/*.md", "examples/**/*.md", "src/**/*.md", "test/**/*.md"].flatMap(
  (pattern) => globSync(pattern, { cwd: root }),
);

/** The text without blocks of code: what looks like a link or a heading there is none. */
function prose(path: string): string {
  return readFileSync(join(root, path), "utf8").replaceAll(/^ *```.*?^ *```$/gms, "");
}

/** How GitHub names a heading: its words without marks, in small letters, joined by dashes. */
function anchor(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
    .trim()
    .replaceAll(" ", "-");
}

function anchors(path: string): ReadonlySet<string> {
  return new Set([...prose(path).matchAll(/^#+ +(.*)$/gm)].map(([, text = ""]) => anchor(text)));
}

function brokenLinks(page: string): readonly string[] {
  return [...prose(page).matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, target = ""]) => {
    if (/^[a-z]+:/.test(target)) return [];
    const [file = "", section] = target.split("#");
    const path = file === "" ? page : normalize(join(dirname(page), file));
    if (!existsSync(join(root, path))) return [target];
    return section === undefined || anchors(path).has(section) ? [] : [target];
  });
}

describe("pages", () => {
  it("are found", () => {
    assert.ok(pages.length > 20, `${pages.length}`);
  });

  for (const page of pages) {
    it(`${page}: every link leads to a file and a heading that are there`, () => {
      assert.deepEqual(brokenLinks(page), []);
    });
  }

  it("docs/README.md names every page of docs", () => {
    const index = prose("docs/README.md");
    const missing = pages
      .filter((page) => /^docs\/[^/]+\.md$/.test(page) && page !== "docs/README.md")
      .filter((page) => !index.includes(`](${page.slice("docs/".length)})`));
    assert.deepEqual(missing, []);
  });
});
