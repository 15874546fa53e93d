import { asciiGlyphs, type Glyphs, shorten, unicodeGlyphs } from "./picture.ts";

export interface ScreenOptions {
  readonly write: (text: string) => void;
  /** Lines may be drawn over. Without, every line stays and holds no control codes. */
  readonly interactive: boolean;
  readonly columns: () => number;
  readonly unicode: boolean;
  readonly color: boolean;
}

/** Where the demo tells its story. Lines of the live area are replaced by whatever is written next. */
export interface Screen {
  readonly columns: number;
  readonly glyphs: Glyphs;
  line(text?: string): void;
  /** The name of a step. */
  heading(text: string): void;
  /** A command that a user would type for what happens now. */
  command(text: string): void;
  /** How a step went. */
  verdict(good: boolean, text: string): void;
  /**
   * What each thing is doing now. Drawn in place on a terminal; elsewhere a line for each text that is new, so that a log
   * tells what was waited for.
   */
  live(states: ReadonlyMap<string, string>): void;
  /** What goes on below {@link Screen.live}: counters, bars. Drawn in place on a terminal, nowhere else. */
  note(lines: readonly string[]): void;
}

const reset = "\u001B[0m";
const styles = { bold: "\u001B[1m", dim: "\u001B[2m", green: "\u001B[32m", red: "\u001B[31m" };

/** What the environment says about the terminal behind `stream`. */
export function screenOptions(
  stream: {
    readonly isTTY?: boolean;
    readonly columns?: number;
    write(text: string): unknown;
  },
  env: Readonly<Record<string, string | undefined>>,
): ScreenOptions {
  const interactive = stream.isTTY === true && env["TERM"] !== "dumb";
  // POSIX: LC_ALL wins over LC_CTYPE, which wins over LANG; an empty one counts as unset.
  const locale = [env["LC_ALL"], env["LC_CTYPE"], env["LANG"]].find(
    (value) => value !== undefined && value !== "",
  );
  return {
    write: (text) => void stream.write(text),
    interactive,
    columns: () => (interactive ? (stream.columns ?? 80) : 100),
    unicode: /utf-?8/i.test(locale ?? ""),
    // https://no-color.org
    color: interactive && (env["NO_COLOR"] ?? "") === "",
  };
}

export function createScreen(options: ScreenOptions): Screen {
  const { interactive, write } = options;
  const glyphs = options.unicode ? unicodeGlyphs : asciiGlyphs;
  // The last column stays empty: some terminals wrap there.
  const columns = (): number => Math.max(20, options.columns() - 1);
  /** Lines of the live area that are on the terminal now. */
  let drawn = 0;
  let rows: readonly string[] = [];
  let notes: readonly string[] = [];
  const told = new Map<string, string>();

  const styled = (style: keyof typeof styles, text: string): string =>
    options.color ? styles[style] + text + reset : text;
  const clear = (): string => (drawn === 0 ? "" : `\u001B[${drawn}A\u001B[0J`);
  const draw = (): void => {
    if (!interactive) return;
    const lines = [...rows, ...notes].map((each) => shorten(each, columns(), glyphs));
    write(clear() + lines.map((each) => `${each}\n`).join(""));
    drawn = lines.length;
  };
  const line = (text = ""): void => {
    write(`${clear()}${text}\n`);
    drawn = 0;
    rows = [];
    notes = [];
    told.clear();
  };
  return {
    get columns() {
      return columns();
    },
    glyphs,
    line,
    heading: (text) => line(`\n${styled("bold", text)}`),
    command: (text) => line(styled("dim", `  $ ${text}`)),
    verdict: (good, text) => {
      const sign = good ? styled("green", glyphs.done) : styled("red", glyphs.failed);
      line(`  ${sign} ${text}`);
    },
    live: (states) => {
      const names = Math.max(0, ...[...states.keys()].map((name) => name.length));
      rows = [...states].map(([name, state]) => `    ${name.padEnd(names)}  ${state}`);
      draw();
      if (interactive) return;
      for (const [name, state] of states) {
        if (told.get(name) !== state) write(`    ${name}: ${state}\n`);
        told.set(name, state);
      }
    },
    note: (lines) => {
      notes = lines;
      draw();
    },
  };
}
