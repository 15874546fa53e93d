/** Lines of context around a change, and the most lines that are compared: a diff is for people to read. */
const contextLines = 3;
const maxLines = 2000;

interface Line {
  readonly mark: " " | "-" | "+";
  readonly text: string;
}

/** Length of the longest common subsequence of the tails that start at each pair of lines. */
function commonTails(before: readonly string[], after: readonly string[]): Uint16Array[] {
  const rows = Array.from({ length: before.length + 1 }, () => new Uint16Array(after.length + 1));
  for (let i = before.length - 1; i >= 0; i -= 1) {
    for (let j = after.length - 1; j >= 0; j -= 1) {
      const row = rows[i];
      if (row === undefined) continue;
      row[j] =
        before[i] === after[j]
          ? (rows[i + 1]?.[j + 1] ?? 0) + 1
          : Math.max(rows[i + 1]?.[j] ?? 0, row[j + 1] ?? 0);
    }
  }
  return rows;
}

function compareLines(before: readonly string[], after: readonly string[]): Line[] {
  const tails = commonTails(before, after);
  const out: Line[] = [];
  let [i, j] = [0, 0];
  while (i < before.length || j < after.length) {
    const [left, right] = [before[i], after[j]];
    if (left !== undefined && left === right) {
      out.push({ mark: " ", text: left });
      i += 1;
      j += 1;
    } else if (
      left !== undefined &&
      (right === undefined || (tails[i + 1]?.[j] ?? 0) >= (tails[i]?.[j + 1] ?? 0))
    ) {
      out.push({ mark: "-", text: left });
      i += 1;
    } else {
      out.push({ mark: "+", text: right ?? "" });
      j += 1;
    }
  }
  return out;
}

/** A unified diff of two JSON values, in pretty print; "" when they print the same. */
export function unifiedDiff(before: unknown, after: unknown): string {
  const [old = [], now = []] = [before, after].map((value) =>
    (JSON.stringify(value ?? null, undefined, 1) ?? "null").split("\n"),
  );
  if (old.length > maxLines || now.length > maxLines) return "";
  const lines = compareLines(old, now);
  const near = lines.map((_line, index) =>
    lines
      .slice(Math.max(0, index - contextLines), index + contextLines + 1)
      .some(({ mark }) => mark !== " "),
  );
  const out: string[] = [];
  let [oldLine, newLine] = [1, 1];
  for (let index = 0; index < lines.length;) {
    if (near[index] !== true) {
      index += 1;
      oldLine += 1;
      newLine += 1;
      continue;
    }
    let end = index;
    while (near[end] === true) end += 1;
    const hunk = lines.slice(index, end);
    const removed = hunk.filter(({ mark }) => mark !== "+").length;
    const added = hunk.filter(({ mark }) => mark !== "-").length;
    out.push(`@@ -${oldLine},${removed} +${newLine},${added} @@`);
    out.push(...hunk.map(({ mark, text }) => `${mark}${text}`));
    oldLine += removed;
    newLine += added;
    index = end;
  }
  return out.map((line) => `${line}\n`).join("");
}
