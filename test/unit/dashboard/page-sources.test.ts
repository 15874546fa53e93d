import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";

const page = fileURLToPath(new URL("../../../src/agent/dashboard/page/", import.meta.url));

function sourceOf(name: string): string {
  return readFileSync(join(page, name), "utf8");
}

describe("sources of the page", () => {
  const programs = globSync("**/*.ts", { cwd: page });

  test("nothing turns text into markup or code", () => {
    assert.ok(programs.length > 10);
    for (const name of programs) {
      assert.doesNotMatch(
        sourceOf(name),
        /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|DOMParser|createContextualFragment|javascript:/i,
        name,
      );
    }
  });

  test("nothing is asked of anybody but the dashboard", () => {
    for (const name of [...programs, "page.css", "page.html"]) {
      const others = sourceOf(name).replaceAll("http://www.w3.org/2000/svg", "");
      assert.doesNotMatch(others, /https?:|url\(|@import|\/\/[a-z]+\.[a-z]/, name);
    }
  });

  test("the page itself has neither scripts nor styles in it, which its policy would not run", () => {
    const html = sourceOf("page.html");
    assert.doesNotMatch(html, /\son\w+=|\sstyle=|<style/);
    assert.deepEqual(html.match(/<script[^>]*>[^<]*/g), ['<script type="module" src="main.js">']);
  });

  test("everything that a program looks for is in the page, once", () => {
    const html = sourceOf("page.html");
    const ids = [...html.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id);
    assert.equal(new Set(ids).size, ids.length);
    const wanted = programs.flatMap((name) =>
      [...sourceOf(name).matchAll(/\bpart\("([^"]+)"/g)].map(([, id]) => id),
    );
    assert.ok(wanted.length > 20);
    for (const id of wanted) assert.ok(ids.includes(id), id);
    for (const [, labels] of html.matchAll(/aria-labelledby="([^"]+)"/g)) {
      assert.ok(ids.includes(labels), labels);
    }
  });

  test("parts that only decide neither wait nor look at a clock or the page", () => {
    for (const name of globSync("model/*.ts", { cwd: page })) {
      const code = sourceOf(name).replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
      assert.doesNotMatch(
        code,
        /\basync\b|\bawait\b|Date\.now|new Date\(\)|Math\.random|\bdocument\b|\bwindow\.|location\./,
        name,
      );
    }
  });

  /** WCAG 2.2, 1.4.3: 4.5 to 1. */
  test("every colour of text stands out from what is behind it, by day and by night", () => {
    const css = sourceOf("page.css");
    const schemes = css.match(/:root \{[^}]*\}/g) ?? [];
    assert.equal(schemes.length, 2);
    for (const scheme of schemes) {
      const colour = new Map(
        [...scheme.matchAll(/--([\w-]+): (#[0-9a-f]{3,6});/g)].map(([, name = "", hex = ""]) => [
          name,
          luminance(hex),
        ]),
      );
      for (const text of ["text", "quiet", "accent", "second", "good", "busy", "bad", "idle"]) {
        for (const behind of ["card", "back"]) {
          const ratio = contrast(colour, text, behind);
          assert.ok(ratio >= 4.5, `${text} on ${behind}: ${ratio.toFixed(2)}`);
        }
      }
      for (const text of ["text", "quiet"]) assert.ok(contrast(colour, text, "soft") >= 4.5, text);
      for (const text of ["text", "bad"]) assert.ok(contrast(colour, text, "bad-back") >= 4.5);
    }
  });
});

function contrast(colours: ReadonlyMap<string, number>, a: string, b: string): number {
  const [one, other] = [colours.get(a), colours.get(b)];
  assert.ok(one !== undefined && other !== undefined, `${a} ${b}`);
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
}

function luminance(hex: string): number {
  const long = hex.length === 4 ? hex.replaceAll(/[0-9a-f]/g, "$&$&") : hex;
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const part = Number.parseInt(long.slice(at, at + 2), 16) / 255;
    return part <= 0.040_45 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
