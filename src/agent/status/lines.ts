import { cutEnd, pad, widthOf } from "./text.ts";

/** How a piece of text looks; the terminal's own sixteen colours, which people have chosen. */
export type Style = "plain" | "bold" | "dim" | "good" | "bad" | "warn" | "accent" | "inverse";

/** A piece of a line. Its text is safe for a terminal and has no control characters. */
export interface Span {
  readonly text: string;
  readonly style: Style;
}

export type Line = readonly Span[];

/** The signs that views are made of. */
export interface Glyphs {
  readonly ellipsis: string;
  /** From an eighth of a column to a whole one. */
  readonly blocks: readonly string[];
  readonly empty: string;
  readonly good: string;
  readonly bad: string;
  readonly up: string;
  readonly down: string;
}

export const unicodeGlyphs: Glyphs = {
  ellipsis: "…",
  blocks: ["▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"],
  empty: "·",
  good: "●",
  bad: "✗",
  up: "▲",
  down: "▼",
};

/** For terminals and files that may not know more. */
export const asciiGlyphs: Glyphs = {
  ellipsis: "~",
  blocks: ["#"],
  empty: ".",
  good: "*",
  bad: "x",
  up: "^",
  down: "v",
};

export function span(text: string, style: Style = "plain"): Span {
  return { text, style };
}

/** A line of one piece. */
export function line(text = "", style: Style = "plain"): Line {
  return text === "" ? [] : [span(text, style)];
}

export function lineWidth(pieces: Line): number {
  return pieces.reduce((sum, { text }) => sum + widthOf(text), 0);
}

/** Cuts a line to so many columns. */
export function cutLine(pieces: Line, width: number, ellipsis: string): Line {
  if (lineWidth(pieces) <= width) return pieces;
  const cut: Span[] = [];
  let left = width;
  for (const { style, text } of pieces) {
    const taken = widthOf(text);
    if (taken >= left) {
      // What follows is lost too, and that is to be seen.
      cut.push(
        span(
          taken > left ? cutEnd(text, left, ellipsis) : cutEnd(`${text} `, left, ellipsis),
          style,
        ),
      );
      return cut;
    }
    cut.push(span(text, style));
    left -= taken;
  }
  return cut;
}

/** A bar of so many columns that is filled to a share between 0 and 1. */
export function bar(share: number, width: number, glyphs: Glyphs, style?: Style): Line {
  const { blocks, empty } = glyphs;
  const whole = blocks.at(-1) ?? "#";
  const steps = Math.round(Math.min(Math.max(share, 0), 1) * width * blocks.length);
  // Something is not nothing.
  const shown = share > 0 ? Math.max(steps, 1) : steps;
  const full = Math.floor(shown / blocks.length);
  const part = shown % blocks.length;
  const filled = whole.repeat(full) + (part === 0 ? "" : (blocks[part - 1] ?? ""));
  const rest = empty.repeat(Math.max(width - widthOf(filled), 0));
  return [
    span(filled, style ?? (share >= 0.9 ? "bad" : share >= 0.75 ? "warn" : "good")),
    span(rest, "dim"),
  ];
}

export interface Column {
  readonly title: string;
  readonly align?: "left" | "right";
  /** Its share of what is left when all others have what they need; default: as wide as its widest cell. */
  readonly grow?: number;
  /** Not wider than this. */
  readonly max?: number;
  /** It can be left out; the higher, the earlier. */
  readonly drop?: number;
}

export interface Cell {
  readonly text: string;
  readonly style?: Style;
  /** How it is cut; default at its end. */
  readonly cut?: (text: string, width: number, ellipsis: string) => string;
}

/** Narrower ones say too little; a column that can be left out goes before others get there. */
const legible = 10;
const gap = 2;

function sumOf(list: readonly number[]): number {
  return list.reduce((total, each) => total + each, 0);
}

/** The columns that have room, by their index: of those that can be left out the least needed go first. */
function keptColumns(
  columns: readonly Column[],
  wanted: readonly number[],
  width: number,
): readonly number[] {
  const least = (index: number): number => {
    const whole = wanted[index] ?? 0;
    return columns[index]?.grow === undefined ? whole : Math.min(whole, legible);
  };
  let kept = columns.map((_, index) => index);
  const droppable = kept
    .filter((index) => columns[index]?.drop !== undefined)
    .toSorted((a, b) => (columns[b]?.drop ?? 0) - (columns[a]?.drop ?? 0));
  for (const index of droppable) {
    if (sumOf(kept.map((each) => least(each) + gap)) - gap <= width) break;
    kept = kept.filter((each) => each !== index);
  }
  return kept;
}

/** Widths of columns that together, with spaces between them, fit into `width` as far as that can be; 0 = left out. */
export function columnWidths(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  width: number,
  withTitles: boolean,
): readonly number[] {
  const wanted = columns.map(({ max = Number.POSITIVE_INFINITY, title }, index) => {
    const cells = rows.map((row) => widthOf(row[index]?.text ?? ""));
    return Math.min(Math.max(withTitles ? widthOf(title) : 0, ...cells), max);
  });
  const kept = keptColumns(columns, wanted, width);
  const widths = wanted.map((each, index) => (kept.includes(index) ? each : 0));
  const room = width - gap * (widths.filter((each) => each > 0).length - 1);
  const growing = kept.filter((index) => columns[index]?.grow !== undefined);
  const weight = (index: number): number => (widths[index] ?? 0) / (columns[index]?.grow ?? 1);
  let over = sumOf(widths) - room;
  // The widest of those that can be cut gives first.
  for (const least of [legible, 1]) {
    for (; over > 0; over -= 1) {
      const [widest] = growing
        .filter((index) => (widths[index] ?? 0) > least)
        .toSorted((a, b) => weight(b) - weight(a));
      if (widest === undefined) break;
      widths[widest] = (widths[widest] ?? 0) - 1;
    }
  }
  return widths;
}

/** One row of a table. */
export function tableLine(
  cells: readonly Cell[],
  columns: readonly Column[],
  widths: readonly number[],
  glyphs: Glyphs,
): Line {
  const last = widths.findLastIndex((width) => width > 0);
  return cells.flatMap(({ cut = cutEnd, style, text }, index) => {
    const width = widths[index] ?? 0;
    if (width === 0) return [];
    const shown = cut(text, width, glyphs.ellipsis);
    const align = columns[index]?.align ?? "left";
    const filled = index === last && align === "left" ? shown : pad(shown, width, align);
    return [span(index === last ? filled : filled + " ".repeat(gap), style)];
  });
}

const codes: Readonly<Record<Style, string>> = {
  plain: "",
  bold: "\u001B[1m",
  dim: "\u001B[2m",
  good: "\u001B[32m",
  bad: "\u001B[31m",
  warn: "\u001B[33m",
  accent: "\u001B[36m",
  inverse: "\u001B[7m",
};
const reset = "\u001B[0m";

/** How much of styles may be shown: without colour, what a row is (inverse) and titles (bold) still are. */
export type Paint = "colour" | "mono" | "none";

const monoStyles: ReadonlySet<Style> = new Set(["bold", "dim", "inverse"]);

/** A line as text for a terminal, or for a file. */
export function paint(pieces: Line, how: Paint): string {
  return pieces
    .map(({ style, text }) => {
      const shown = how === "colour" || (how === "mono" && monoStyles.has(style));
      return !shown || style === "plain" || text === "" ? text : codes[style] + text + reset;
    })
    .join("")
    .trimEnd();
}
