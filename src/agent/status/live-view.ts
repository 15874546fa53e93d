import type { Answer } from "../local/local-client.ts";
import type { NodeSnapshot } from "../local/types.ts";
import type { Key } from "./keys.ts";
import type { Line } from "./lines.ts";
import type { Terminal } from "./terminal.ts";

export interface LiveViewOptions {
  readonly terminal: Terminal;
  /** Snapshots until the signal aborts; the last answer may tell why there are no more. */
  readonly follow: (signal: AbortSignal) => AsyncIterable<Answer>;
  /** The whole screen; undefined before the first answer. */
  readonly view: (snapshot: NodeSnapshot | undefined) => readonly Line[];
  /** @returns False when the key ends the view. */
  readonly press: (key: Key, snapshot: NodeSnapshot | undefined) => boolean;
}

/**
 * Shows a node on a terminal until somebody ends it, and gives the terminal back.
 *
 * @returns The last answer; undefined when there was none.
 */
export async function runLiveView(
  { follow, press, terminal, view }: LiveViewOptions,
  signal: AbortSignal,
): Promise<Answer | undefined> {
  const stop = new AbortController();
  let snapshot: NodeSnapshot | undefined;
  let last: Answer | undefined;
  const draw = (): void => {
    terminal.draw(view(snapshot));
  };
  terminal.onResize(draw);
  terminal.onKey((key) => {
    if (press(key, snapshot)) draw();
    else stop.abort();
  });
  try {
    draw();
    for await (const answer of follow(AbortSignal.any([signal, stop.signal]))) {
      last = answer;
      if (answer.kind === "snapshot") ({ snapshot } = answer);
      draw();
    }
  } finally {
    terminal.close();
  }
  return last;
}
