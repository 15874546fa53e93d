import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  createScreen,
  type Screen,
  screenOptions,
  type ScreenOptions,
} from "../../../../src/agent/demo/screen.ts";

function screen(options: Partial<ScreenOptions> = {}): { on: Screen; text: () => string } {
  let text = "";
  const on = createScreen({
    write: (piece) => (text += piece),
    interactive: false,
    columns: () => 40,
    unicode: false,
    color: false,
    ...options,
  });
  return { on, text: () => text };
}

const states = (state: string) => new Map([["web-1", state]]);

describe("a screen that is no terminal", () => {
  test("gets whole lines without control codes, and each state once", () => {
    const { on, text } = screen();
    on.heading("1. Start");
    on.command("kubectl create");
    on.live(states("starting"));
    on.note(["3 of 10"]);
    on.live(states("starting"));
    on.live(states("ready"));
    on.verdict(true, "it runs");
    on.verdict(false, "it fell");
    assert.equal(
      text(),
      "\n1. Start\n  $ kubectl create\n    web-1: starting\n    web-1: ready\n  ok: it runs\n  failed: it fell\n",
    );
  });
});

describe("a terminal", () => {
  test("draws live lines over each other and leaves none of them behind", () => {
    const { on, text } = screen({ interactive: true });
    on.live(states("starting"));
    assert.equal(text(), "    web-1  starting\n");
    on.note(["half"]);
    assert.ok(text().endsWith("\u001B[1A\u001B[0J    web-1  starting\nhalf\n"), text());
    on.line("over");
    assert.ok(text().endsWith("half\n\u001B[2A\u001B[0Jover\n"), text());
    on.line("next");
    assert.ok(text().endsWith("over\nnext\n"), "what was cleared is not cleared again");
  });
  test("never lets a live line wrap, which would spoil the count of lines", () => {
    const { on, text } = screen({ interactive: true, columns: () => 30 });
    on.live(states("a message that is much longer than the terminal is wide"));
    assert.equal(text().length, 30);
  });
  test("a text may be coloured, and is not when nobody wants colours", () => {
    const { on, text } = screen({ interactive: true, color: true });
    on.verdict(true, "fine");
    assert.equal(text(), "  \u001B[32mok:\u001B[0m fine\n");
  });
});

describe("screenOptions", () => {
  const stream = { isTTY: true, columns: 120, write: () => true };
  const cases: readonly (readonly [Record<string, string>, Partial<ScreenOptions>])[] = [
    [{ LANG: "en_US.UTF-8" }, { interactive: true, unicode: true, color: true }],
    [{ LANG: "en_US.UTF-8", LC_ALL: "C" }, { unicode: false }],
    [{ LANG: "C.utf8", LC_ALL: "" }, { unicode: true }],
    [{}, { unicode: false }],
    [{ NO_COLOR: "1" }, { interactive: true, color: false }],
    [{ TERM: "dumb" }, { interactive: false, color: false }],
  ];
  for (const [env, expected] of cases) {
    test(`${JSON.stringify(env)} gives ${JSON.stringify(expected)}`, () => {
      const options = screenOptions(stream, env);
      assert.deepEqual({ ...options, ...expected }, options);
    });
  }
  test("a pipe is not interactive", () => {
    const options = screenOptions({ write: () => true }, { LANG: "C.UTF-8" });
    assert.equal(options.interactive, false);
    assert.equal(options.color, false);
    assert.equal(options.columns(), 100);
  });
});
