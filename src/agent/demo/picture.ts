/** The signs that a picture is made of. */
export interface Glyphs {
  readonly down: string;
  readonly branch: string;
  readonly lastBranch: string;
  readonly line: string;
  readonly bar: string;
  readonly done: string;
  readonly failed: string;
  readonly ellipsis: string;
}

export const unicodeGlyphs: Glyphs = {
  down: "▼",
  branch: "├─▶ ",
  lastBranch: "└─▶ ",
  line: "│",
  bar: "█",
  done: "✓",
  failed: "✗",
  ellipsis: "…",
};

/** For terminals and files that may not know more. */
export const asciiGlyphs: Glyphs = {
  down: "v",
  branch: "|-> ",
  lastBranch: "`-> ",
  line: "|",
  bar: "#",
  done: "ok:",
  failed: "failed:",
  ellipsis: "~",
};

/** Cuts `text` to `width` characters in its middle: the ends of pod names are what tells them apart. */
export function shorten(text: string, width: number, glyphs: Glyphs): string {
  if (text.length <= width) return text;
  if (width <= 1) return text.slice(0, Math.max(width, 0));
  const head = Math.floor((width - 1) / 2);
  return text.slice(0, head) + glyphs.ellipsis + text.slice(text.length - (width - 1 - head));
}

export interface ServicePicture {
  readonly client: string;
  readonly service: string;
  /** `10.96.0.20:80`. */
  readonly address: string;
  readonly endpoints: readonly { readonly pod: string; readonly address: string }[];
}

function nameAndAddress(
  name: string,
  nameWidth: number,
  address: string,
  room: number,
  glyphs: Glyphs,
): string {
  const both = `${name.padEnd(nameWidth)}  ${address}`;
  return both.length <= room ? both : shorten(name, room, glyphs);
}

/** Who asks whom, one line of the picture per line; none is wider than `width`. */
export function drawService(
  picture: ServicePicture,
  width: number,
  glyphs: Glyphs,
): readonly string[] {
  const { client, service, address, endpoints } = picture;
  const indent = "  ";
  const names = Math.max(0, ...endpoints.map(({ pod }) => pod.length));
  const inner = indent + indent;
  const room = width - inner.length - glyphs.branch.length;
  const title = nameAndAddress(service, service.length, address, width - indent.length, glyphs);
  return [
    indent + shorten(client, width - indent.length, glyphs),
    shorten(`${inner}${glyphs.line} http://${service}`, width, glyphs),
    inner + glyphs.down,
    indent + title,
    ...(endpoints.length === 0 ? [`${inner}${glyphs.lastBranch}(no endpoints)`] : []),
    ...endpoints.map((endpoint, index) => {
      const branch = index === endpoints.length - 1 ? glyphs.lastBranch : glyphs.branch;
      return inner + branch + nameAndAddress(endpoint.pod, names, endpoint.address, room, glyphs);
    }),
  ];
}

/** One bar per entry, the longest as long as `width` allows; where there is no room for bars, the counts alone. */
export function drawBars(
  counts: ReadonlyMap<string, number>,
  width: number,
  glyphs: Glyphs,
): readonly string[] {
  const indent = "  ";
  const most = Math.max(1, ...counts.values());
  const digits = String(most).length;
  const names = Math.max(0, ...[...counts.keys()].map((name) => name.length));
  const room = Math.min(40, width - indent.length - names - 2 - 2 - digits);
  return [...counts].map(([name, count]) => {
    const figure = String(count).padStart(digits);
    if (room < 4) {
      const left = width - indent.length - 2 - digits;
      return `${indent}${shorten(name, left, glyphs)}  ${figure}`;
    }
    const bar = glyphs.bar.repeat(Math.round((count / most) * room)).padEnd(room);
    return `${indent}${name.padEnd(names)}  ${bar}  ${figure}`;
  });
}
