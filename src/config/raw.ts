/** Where a value was written. */
export type Origin =
  | { readonly kind: "file"; readonly file: string; readonly line: number }
  | { readonly kind: "flag"; readonly flag: string };

/** What was written, before anybody knows what it should be. `plain` text has no quotes; `flag` text has no type. */
export type Raw = { readonly origin: Origin } & (
  | { readonly kind: "null" }
  | { readonly kind: "scalar"; readonly text: string; readonly style: "plain" | "quoted" | "flag" }
  | { readonly kind: "list"; readonly items: readonly Raw[] }
  | { readonly kind: "map"; readonly entries: ReadonlyMap<string, Raw> }
);

export type RawMap = Extract<Raw, { kind: "map" }>;

/** `file:line`, or the flag. */
export function originText(origin: Origin): string {
  return origin.kind === "flag" ? `--${origin.flag}` : `${origin.file}:${origin.line}`;
}

/** What plain text is without quotes around it (YAML 1.1 as Go's parser reads it, of which JSON is a part). */
export type Plain =
  | { readonly is: "null" | "string" }
  | { readonly is: "bool"; readonly value: boolean }
  | { readonly is: "integer" | "number"; readonly value: number };

const nulls = new Set(["", "~", "null", "Null", "NULL"]);
const yes = new Set(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"]);
const no = new Set(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"]);
const integer = /^[-+]?(0b[01]+|0x[0-9a-fA-F]+|0o?[0-7]+|[1-9][0-9]*|0)$/;
const float = /^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$/;

function integerValue(text: string): number {
  const negative = text.startsWith("-");
  const digits = text.replace(/^[-+]/, "");
  // 0644 is octal, as it is for chmod.
  const octal = /^0o?([0-7]+)$/.exec(digits)?.[1];
  const value = octal === undefined ? Number(digits) : Number.parseInt(octal, 8);
  return negative && value !== 0 ? -value : value;
}

/** @param text Of a plain scalar. */
export function resolvePlain(text: string): Plain {
  if (nulls.has(text)) return { is: "null" };
  if (yes.has(text)) return { is: "bool", value: true };
  if (no.has(text)) return { is: "bool", value: false };
  const digits = text.replaceAll(/(?<=[0-9a-fA-F])_/g, "");
  if (integer.test(digits)) return { is: "integer", value: integerValue(digits) };
  if (float.test(digits)) return { is: "number", value: Number(digits) };
  return { is: "string" };
}

/** Lays `patch` over `base` as a JSON merge patch (RFC 7386): maps merge, lists and scalars replace, null removes. */
export function mergePatch(base: Raw | undefined, patch: Raw): Raw {
  if (patch.kind !== "map") return patch;
  const entries = new Map(base?.kind === "map" ? base.entries : []);
  for (const [key, value] of patch.entries) {
    if (value.kind === "null") entries.delete(key);
    else entries.set(key, mergePatch(entries.get(key), value));
  }
  return { kind: "map", entries, origin: patch.origin };
}
