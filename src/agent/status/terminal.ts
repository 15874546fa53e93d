import type { ReadStream, WriteStream } from "node:tty";

import { type Key, readKeys } from "./keys.ts";
import { type Line, paint } from "./lines.ts";
import { terminalOptions } from "./terminal-options.ts";

/** A terminal that belongs to a view until it is closed. */
export interface Terminal {
  /** Shows these lines from the top of the screen. Only what is another than before is sent. */
  draw(lines: readonly Line[]): void;
  onKey(listener: (key: Key) => void): void;
  /** Also when it comes back after it was stopped (ctrl-z). */
  onResize(listener: () => void): void;
  /** Gives it back as it was. */
  close(): void;
}

const enter = "\u001B[?1049h\u001B[?25l\u001B[?7l\u001B[2J";
const leave = "\u001B[?7h\u001B[?25h\u001B[?1049l";
/** Terminals that know it show all at once; others pass over it. */
const beginFrame = "\u001B[?2026h";
const endFrame = "\u001B[?2026l";

/**
 * What has to be sent so that a screen that shows `before` shows `after`.
 *
 * @param before Undefined for a screen that shows anything.
 */
export function frameText(before: readonly string[] | undefined, after: readonly string[]): string {
  let text = before === undefined ? "\u001B[2J" : "";
  const rows = Math.max(before?.length ?? 0, after.length);
  for (let row = 0; row < rows; row += 1) {
    const line = after[row] ?? "";
    if (before !== undefined && (before[row] ?? "") === line) continue;
    text += `\u001B[${row + 1};1H${line}\u001B[K`;
  }
  return text === "" ? "" : beginFrame + text + endFrame;
}

/** Takes the terminal: another screen, keys as they are pressed. */
export function openTerminal(
  input: ReadStream,
  output: WriteStream,
  env: Readonly<Record<string, string | undefined>>,
): Terminal {
  const { paint: how } = terminalOptions(output, env);
  const keyListeners: ((key: Key) => void)[] = [];
  const resizeListeners: (() => void)[] = [];
  let shown: readonly string[] | undefined;
  let wanted: readonly string[] = [];
  let pending = "";
  let isOpen = false;
  let isClosed = false;

  const flush = (): void => {
    // A slow line gets the newest frame when it can take one, not all that it has missed.
    if (!isOpen || output.writableNeedDrain) return;
    const text = frameText(shown, wanted);
    shown = wanted;
    if (text !== "") output.write(text);
  };
  const take = (): void => {
    if (isOpen) return;
    isOpen = true;
    input.setRawMode(true);
    output.write(enter);
    shown = [];
  };
  const giveBack = (): void => {
    if (!isOpen) return;
    isOpen = false;
    output.write(leave);
    input.setRawMode(false);
  };
  const resized = (): void => {
    shown = undefined;
    for (const listener of resizeListeners) listener();
    flush();
  };
  const carryOn = (): void => {
    if (isClosed || isOpen) return;
    take();
    // Only who is in front is told that the window is of another size: Node looks when it is.
    process.emit("SIGWINCH", "SIGWINCH");
    resized();
  };
  const stop = (): void => {
    giveBack();
    // All that runs with it stops, such as sudo; where no shell is there to carry on, the kernel stops nothing.
    process.kill(0, "SIGTSTP");
    setImmediate(carryOn);
  };
  const onData = (chunk: string): void => {
    const { keys, rest } = readKeys(chunk, pending);
    pending = rest;
    for (const key of keys) {
      if (key === "ctrl-z") stop();
      else if (key === "ctrl-l") resized();
      else for (const listener of keyListeners) listener(key);
    }
  };
  const onEnd = (): void => {
    for (const listener of keyListeners) listener("ctrl-c");
  };

  take();
  input.setEncoding("utf8");
  input.on("data", onData);
  input.on("end", onEnd);
  // Whoever hangs up does not want to know.
  const onError = (): void => onEnd();
  output.on("error", onError);
  input.on("error", onError);
  output.on("drain", flush);
  output.on("resize", resized);
  process.on("SIGCONT", carryOn);
  process.on("exit", giveBack);
  input.resume();

  return {
    draw: (lines) => {
      wanted = lines.slice(0, output.rows).map((line) => paint(line, how));
      flush();
    },
    onKey: (listener) => void keyListeners.push(listener),
    onResize: (listener) => void resizeListeners.push(listener),
    close: () => {
      isClosed = true;
      giveBack();
      input.off("data", onData);
      input.off("end", onEnd);
      input.pause();
      output.off("drain", flush);
      output.off("resize", resized);
      process.off("SIGCONT", carryOn);
      process.off("exit", giveBack);
    },
  };
}
