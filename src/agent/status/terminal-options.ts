import { asciiGlyphs, type Glyphs, type Paint, unicodeGlyphs } from "./lines.ts";

/** What a stream and the environment allow. */
export interface TerminalOptions {
  /** Somebody sits there, and lines may be drawn over. */
  readonly interactive: boolean;
  readonly paint: Paint;
  readonly glyphs: Glyphs;
}

/** What is known of the terminal behind `stream`. */
export function terminalOptions(
  stream: { readonly isTTY?: boolean },
  env: Readonly<Record<string, string | undefined>>,
): TerminalOptions {
  const interactive = stream.isTTY === true && env["TERM"] !== "dumb" && (env["TERM"] ?? "") !== "";
  // POSIX: LC_ALL wins over LC_CTYPE, which wins over LANG; an empty one counts as unset.
  const locale = [env["LC_ALL"], env["LC_CTYPE"], env["LANG"]].find(
    (value) => value !== undefined && value !== "",
  );
  // https://no-color.org
  const colour = (env["NO_COLOR"] ?? "") === "";
  return {
    interactive,
    paint: interactive ? (colour ? "colour" : "mono") : "none",
    glyphs: /utf-?8/i.test(locale ?? "") ? unicodeGlyphs : asciiGlyphs,
  };
}
