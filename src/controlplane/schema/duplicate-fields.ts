/**
 * Paths of members that occur twice in one JSON object (`spec.replicas`), in document order. `text` must already have
 * been accepted by JSON.parse, which keeps the last of them silently.
 */
export function duplicateFields(text: string): string[] {
  const found: string[] = [];
  let at = 0;

  const skipSpace = (): void => {
    while (at < text.length && " \t\r\n".includes(text[at] ?? "")) at += 1;
  };
  const readString = (): string => {
    const start = at;
    at += 1;
    while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
    at += 1;
    const parsed: unknown = JSON.parse(text.slice(start, at));
    return String(parsed);
  };
  const readObject = (path: string): void => {
    const seen = new Set<string>();
    at += 1;
    skipSpace();
    while (text[at] !== "}") {
      const key = readString();
      const member = path === "" ? key : `${path}.${key}`;
      if (seen.has(key)) found.push(member);
      seen.add(key);
      skipSpace();
      at += 1;
      readValue(member);
      if (text[at] === ",") at += 1;
      skipSpace();
    }
    at += 1;
  };
  const readArray = (path: string): void => {
    at += 1;
    skipSpace();
    for (let index = 0; text[at] !== "]"; index += 1) {
      readValue(`${path}[${index}]`);
      if (text[at] === ",") at += 1;
      skipSpace();
    }
    at += 1;
  };
  function readValue(path: string): void {
    skipSpace();
    const first = text[at];
    if (first === "{") readObject(path);
    else if (first === "[") readArray(path);
    else if (first === '"') readString();
    else while (at < text.length && !",]} \t\r\n".includes(text[at] ?? "")) at += 1;
    skipSpace();
  }

  readValue("");
  return [...new Set(found)];
}
