import assert from "node:assert/strict";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { before, describe, test } from "node:test";

import { bundleDashboardPage, dashboardPage } from "../../../scripts/dashboard-page.ts";
import { inTemporary } from "../../fakes/temporary.ts";

const page = new URL("../../../src/agent/dashboard/page/", import.meta.url);

/** Relative luminance (WCAG 2.2) of `#rgb` or `#rrggbb`. */
function luminance(color: string): number {
  const digits = color.length === 4 ? color.replaceAll(/[^#]/g, "$&$&") : color;
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const value = Number.parseInt(digits.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(a: string, b: string): number {
  const [dark = 0, light = 0] = [luminance(a), luminance(b)].toSorted((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}

function colorsOf(block: string): ReadonlyMap<string, string> {
  return new Map(
    [...block.matchAll(/--([\w-]+):\s*(#[0-9a-f]{3,6});/g)].map(([, a = "", b = ""]) => [a, b]),
  );
}

describe("how the page looks", () => {
  let css = "";
  before(async () => {
    css = await readFile(new URL("page.css", page), "utf8");
  });

  test("text has contrast enough for everybody, by day and by night (WCAG AA)", () => {
    const [light = "", dark = ""] = [...css.matchAll(/:root \{([^}]*)\}/g)].map(
      ([, block]) => block,
    );
    const day = colorsOf(light);
    for (const colors of [day, new Map([...day, ...colorsOf(dark)])]) {
      for (const text of ["text", "quiet", "accent", "good", "busy", "bad", "idle"]) {
        for (const back of ["back", "card", "soft"]) {
          const ratio = contrast(colors.get(text) ?? "", colors.get(back) ?? "");
          assert.ok(ratio >= 4.5, `${text} on ${back}: ${ratio.toFixed(2)}`);
        }
      }
      for (const text of ["text", "bad"]) {
        const ratio = contrast(colors.get(text) ?? "", colors.get("bad-back") ?? "");
        assert.ok(ratio >= 4.5, `${text} on bad-back: ${ratio.toFixed(2)}`);
      }
    }
    assert.equal(contrast("#fff", "#000"), 21);
  });

  test("nothing is asked of anybody else: no address of another host in any file", async () => {
    for (const name of ["page.html", "page.css", "icon.svg"]) {
      const text = (await readFile(new URL(name, page), "utf8")).replaceAll(
        "http://www.w3.org/2000/svg",
        "",
      );
      assert.doesNotMatch(text, /\/\/[\w.-]+|url\(|@import|<style| style=| on\w+=/, name);
    }
  });

  test("is below 60 kB", async () => {
    await inTemporary(async (directory) => {
      const bytes = await bundleDashboardPage(directory);
      assert.equal((await stat(join(directory, dashboardPage))).size, bytes);
      assert.ok(bytes < 60_000, `${bytes} bytes`);
    });
  });
});
