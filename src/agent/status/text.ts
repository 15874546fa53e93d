/** Anything that could steer a terminal, or make what is shown differ from what is there. */
const escapes =
  // oxlint-disable-next-line no-control-regex -- control characters are what it is about
  /\u001B\[[0-?]*[ -/]*[@-~]|\u001B[\]PX^_][^\u0007\u001B\u009C]*(?:\u0007|\u001B\\|\u009C)?|\u009B[0-?]*[ -/]*[@-~]|\u001B[ -/]*[0-~]?/g;
const controls = /\p{Cc}/gu;
/** Marks of direction, fillers without width, and code points that are none. */
const deceits = /[\u061C\u180E\u200B-\u200F\u2028-\u202E\u2060-\u206F\uFEFF\uFFF9-\uFFFB]|\p{Cs}/gu;

/**
 * Text of others, such as names, events and messages of programs, as one line that is safe on a terminal: escape sequences
 * are taken out whole, line ends are spaces.
 */
export function plain(text: string): string {
  return text
    .replaceAll(escapes, "")
    .replaceAll(/[\t\n\v\f\r\u0085]+/g, " ")
    .replaceAll(controls, "")
    .replaceAll(deceits, "");
}

const zero = /^[\p{Mn}\p{Me}\p{Cf}\u1160-\u11FF]$/u;
/** East Asian Wide and Fullwidth (UAX 11), and what terminals show as a picture. */
const wide =
  /^[\u1100-\u115F\u231A\u231B\u2329\u232A\u2E80-\u303E\u3041-\u33FF\u3400-\u4DBF\u4E00-\uA4CF\uA960-\uA97F\uAC00-\uD7A3\uF900-\uFAFF\uFE10-\uFE19\uFE30-\uFE6F\uFF00-\uFF60\uFFE0-\uFFE6\u{16FE0}-\u{18DFF}\u{1AFF0}-\u{1B2FF}\u{1F200}-\u{1F2FF}\u{20000}-\u{3FFFD}\p{Emoji_Presentation}]$/u;
const ascii = /^[ -~]*$/;
const graphemes = new Intl.Segmenter("en", { granularity: "grapheme" });

function widthOfOne(cluster: string): number {
  const [first = ""] = cluster;
  if (zero.test(first)) return 0;
  // A picture made of several, or a sign that is asked to be one.
  return wide.test(first) || cluster.includes("\uFE0F") ? 2 : 1;
}

/** Columns that text takes on a terminal. */
export function widthOf(text: string): number {
  if (ascii.test(text)) return text.length;
  let width = 0;
  for (const { segment } of graphemes.segment(text)) width += widthOfOne(segment);
  return width;
}

function head(text: string, width: number): string {
  if (ascii.test(text)) return text.slice(0, width);
  let left = width;
  let end = 0;
  for (const { index, segment } of graphemes.segment(text)) {
    left -= widthOfOne(segment);
    if (left < 0) break;
    end = index + segment.length;
  }
  return text.slice(0, end);
}

function tail(text: string, width: number): string {
  if (ascii.test(text)) return width === 0 ? "" : text.slice(-width);
  let left = width;
  let start = text.length;
  for (const { index, segment } of [...graphemes.segment(text)].toReversed()) {
    left -= widthOfOne(segment);
    if (left < 0) break;
    start = index;
  }
  return text.slice(start);
}

/** Cuts text at its end to so many columns. */
export function cutEnd(text: string, width: number, ellipsis: string): string {
  if (widthOf(text) <= width) return text;
  return width < 2 ? head(text, Math.max(width, 0)) : head(text, width - 1) + ellipsis;
}

/** Cuts text in its middle: the ends of pods' names are what tells them apart. */
export function cutMiddle(text: string, width: number, ellipsis: string): string {
  if (widthOf(text) <= width) return text;
  if (width < 4) return cutEnd(text, width, ellipsis);
  const front = Math.floor((width - 1) / 2);
  return head(text, front) + ellipsis + tail(text, width - 1 - front);
}

/** Fills text up to so many columns. */
export function pad(text: string, width: number, align: "left" | "right" = "left"): string {
  const fill = " ".repeat(Math.max(width - widthOf(text), 0));
  return align === "left" ? text + fill : fill + text;
}

/** Breaks text into lines of at most so many columns, at spaces where there are any; the last is cut. */
export function wrap(text: string, width: number, maxLines: number, ellipsis: string): string[] {
  const lines: string[] = [];
  let rest = text.trim();
  while (rest !== "" && lines.length < maxLines - 1 && widthOf(rest) > width) {
    const fits = head(rest, width);
    const space = fits.lastIndexOf(" ");
    const end = rest[fits.length] === " " || space < width / 3 ? fits.length : space;
    // A single sign that is wider than all there is.
    const line = rest.slice(0, Math.max(end, 1));
    lines.push(line.trimEnd());
    rest = rest.slice(line.length).trimStart();
  }
  if (rest !== "" && maxLines > 0) lines.push(cutEnd(rest, width, ellipsis));
  return lines;
}
