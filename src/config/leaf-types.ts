import { formatGoDuration, parseGoDuration } from "./go-duration.ts";
import { type Origin, type Raw, resolvePlain } from "./raw.ts";
import type { Json, LeafType, Refuse } from "./shape.ts";

/** What stands there, in the words of an error message. */
function found(raw: Raw): string {
  if (raw.kind === "list") return "is a list";
  if (raw.kind === "map") return "is an object";
  if (raw.kind === "null") return "is null";
  const shown = JSON.stringify(raw.text.length > 60 ? `${raw.text.slice(0, 60)}...` : raw.text);
  if (raw.style === "flag") return `${shown} is not good`;
  const plain = raw.style === "plain" ? resolvePlain(raw.text).is : "string";
  const article = plain === "integer" ? "an" : "a";
  return plain === "null"
    ? "is null"
    : `${shown} is ${article} ${plain === "bool" ? "boolean" : plain}`;
}

function lastText(texts: readonly string[], flag: string): Raw {
  return {
    kind: "scalar",
    text: texts.at(-1) ?? "",
    style: "flag",
    origin: { kind: "flag", flag },
  };
}

/** Text of a scalar that is text. */
function textOf(raw: Raw, refuse: Refuse, wanted = "text"): string | undefined {
  if (raw.kind === "scalar") {
    if (raw.style !== "plain" || resolvePlain(raw.text).is === "string") return raw.text;
    refuse(raw, `${found(raw)} where ${wanted} belongs; put it in quotes`);
    return undefined;
  }
  refuse(raw, `${found(raw)} where ${wanted} belongs`);
  return undefined;
}

const truths = new Set(["1", "t", "T", "true", "TRUE", "True"]);
const lies = new Set(["0", "f", "F", "false", "FALSE", "False"]);

function boolOf(raw: Raw, refuse: Refuse): boolean | undefined {
  if (raw.kind === "scalar" && raw.style === "flag") {
    if (truths.has(raw.text)) return true;
    if (lies.has(raw.text)) return false;
  }
  if (raw.kind === "scalar" && raw.style === "plain") {
    const plain = resolvePlain(raw.text);
    if (plain.is === "bool") return plain.value;
  }
  const quotes = raw.kind === "scalar" && raw.style === "quoted" ? ", without quotes" : "";
  refuse(raw, `${found(raw)}; it must be true or false${quotes}`);
  return undefined;
}

interface Limits {
  readonly min: number;
  readonly max: number;
}

function integerOf(raw: Raw, refuse: Refuse, { min, max }: Limits): number | undefined {
  if (raw.kind === "scalar" && raw.style !== "quoted") {
    const plain = resolvePlain(raw.text);
    if (plain.is === "integer") {
      if (plain.value >= min && plain.value <= max) return plain.value;
      refuse(raw, `${raw.text} is out of range; it must be between ${min} and ${max}`);
      return undefined;
    }
  }
  const quotes = raw.kind === "scalar" && raw.style === "quoted" ? ", without quotes" : "";
  refuse(raw, `${found(raw)}; it must be a whole number${quotes}`);
  return undefined;
}

function integerType(name: string, limits: Limits): LeafType<number> {
  return {
    name,
    decode: (raw, refuse) => integerOf(raw, refuse, limits),
    encode: (value) => value,
    fromFlag: lastText,
    isZero: (value) => value === 0,
  };
}

export const boolType: LeafType<boolean> = {
  name: "boolean",
  decode: boolOf,
  encode: (value) => value,
  // A flag without a value is switched on.
  fromFlag: (texts, flag) => lastText(texts.at(-1) === "" ? ["true"] : texts, flag),
  isZero: (value) => !value,
};

export const int32Type = integerType("int32", { min: -(2 ** 31), max: 2 ** 31 - 1 });
export const uint32Type = integerType("uint32", { min: 0, max: 2 ** 32 - 1 });
/** As far as numbers are exact here. */
export const int64Type = integerType("int64", {
  min: Number.MIN_SAFE_INTEGER,
  max: Number.MAX_SAFE_INTEGER,
});

export const floatType: LeafType<number> = {
  name: "number",
  decode: (raw, refuse) => {
    if (raw.kind === "scalar" && raw.style !== "quoted") {
      const plain = resolvePlain(raw.text);
      if (plain.is === "integer" || plain.is === "number") return plain.value;
    }
    refuse(raw, `${found(raw)}; it must be a number`);
    return undefined;
  },
  encode: (value) => value,
  fromFlag: lastText,
  isZero: (value) => value === 0,
};

export const stringType: LeafType<string> = {
  name: "string",
  decode: (raw, refuse) => textOf(raw, refuse),
  encode: (value) => value,
  fromFlag: lastText,
  isZero: (value) => value === "",
};

/** One of some words, or nothing. Upstream's own validation says what else is wrong with a word. */
export function wordType<W extends string>(...words: readonly W[]): LeafType<W> {
  return {
    name: words.map((word) => JSON.stringify(word)).join(", "),
    decode: (raw, refuse) => {
      const text = textOf(raw, refuse);
      if (text === undefined) return undefined;
      const word = words.find((each) => each === text);
      if (word === undefined && text !== "") {
        refuse(
          raw,
          `${JSON.stringify(text)} must be one of: ${words.map((each) => JSON.stringify(each)).join(", ")}`,
        );
      }
      return word;
    },
    encode: (value) => value,
    fromFlag: lastText,
    isZero: () => false,
  };
}

/** Milliseconds. */
export const durationType: LeafType<number> = {
  name: "duration",
  decode: (raw, refuse) => {
    const text = textOf(raw, refuse, "a duration such as 10s or 1h30m");
    if (text === undefined) return undefined;
    const ms = parseGoDuration(text);
    if (ms === undefined) {
      refuse(raw, `${JSON.stringify(text)} is not a duration; write it as 10s, 100ms or 1h30m`);
    }
    return ms;
  },
  encode: formatGoDuration,
  fromFlag: lastText,
  isZero: (value) => value === 0,
};

const nanosPerMs = 1e6;

/** A duration that may also be a plain number of nanoseconds (`logging.flushFrequency`). */
export const nanosOrDurationType: LeafType<number> = {
  ...durationType,
  name: "duration, or nanoseconds",
  decode: (raw, refuse) => {
    if (raw.kind === "scalar" && raw.style === "plain") {
      const plain = resolvePlain(raw.text);
      if (plain.is === "integer") return plain.value / nanosPerMs;
    }
    return durationType.decode(raw, refuse);
  },
};

function itemsOf(raw: Raw, refuse: Refuse): readonly Raw[] | undefined {
  if (raw.kind === "list") return raw.items;
  refuse(raw, `${found(raw)} where a list belongs`);
  return undefined;
}

function flagList(texts: readonly string[], flag: string): Raw {
  const origin: Origin = { kind: "flag", flag };
  const items = texts
    .flatMap((text) => (text === "" ? [] : text.split(",")))
    .map((text): Raw => ({ kind: "scalar", text: text.trim(), style: "flag", origin }));
  return { kind: "list", items, origin };
}

function listType<T>(element: LeafType<T>, name: string): LeafType<readonly T[]> {
  return {
    name,
    decode: (raw, refuse) => {
      const items = itemsOf(raw, refuse)?.map((item) => element.decode(item, refuse));
      return items?.filter((item) => item !== undefined);
    },
    encode: (value) => value.map((item) => element.encode(item)),
    fromFlag: flagList,
    isZero: (value) => value.length === 0,
  };
}

export const stringsType = listType(stringType, "list of strings");
export const int32sType = listType(int32Type, "list of int32");

/** `key=value,key=value`; in thresholds `key<value`. */
function flagMap(separator: string): LeafType<unknown>["fromFlag"] {
  return (texts, flag) => {
    const origin: Origin = { kind: "flag", flag };
    const entries = new Map<string, Raw>();
    for (const pair of texts
      .flatMap((text) => text.split(","))
      .filter((each) => each.trim() !== "")) {
      const at = pair.indexOf(separator);
      const key = (at < 0 ? pair : pair.slice(0, at)).trim();
      const text = at < 0 ? "" : pair.slice(at + separator.length).trim();
      // A pair without its separator is told by the decoder, which knows the field.
      entries.set(
        key,
        at < 0 ? { kind: "null", origin } : { kind: "scalar", text, style: "flag", origin },
      );
    }
    return { kind: "map", entries, origin };
  };
}

function mapType<T>(
  element: LeafType<T>,
  name: string,
  separator = "=",
): LeafType<Readonly<Record<string, T>>> {
  return {
    name,
    decode: (raw, refuse) => {
      if (raw.kind !== "map") {
        refuse(raw, `${found(raw)} where an object belongs`);
        return undefined;
      }
      const out: [string, T][] = [];
      for (const [key, member] of raw.entries) {
        if (member.kind === "null" && raw.origin.kind === "flag") {
          refuse(raw, `malformed pair, expect string${separator}string: ${JSON.stringify(key)}`);
          continue;
        }
        const value = element.decode(member, (at, text) => refuse(at, `${key}: ${text}`));
        if (value !== undefined) out.push([key, value]);
      }
      return Object.fromEntries(out);
    },
    encode: (value) =>
      Object.fromEntries(
        Object.entries(value)
          .toSorted(([a], [b]) => (a < b ? -1 : 1))
          .map(([key, member]): [string, Json] => [key, element.encode(member)]),
      ),
    fromFlag: flagMap(separator),
    isZero: (value) => Object.keys(value).length === 0,
  };
}

export const stringMapType = mapType(stringType, "map of strings");
export const boolMapType = mapType(boolType, "map of booleans");
/** Eviction thresholds, whose flag is written `memory.available<100Mi`. */
export const thresholdsType = mapType(stringType, "map of strings", "<");
export const headersType = mapType(stringsType, "map of lists of strings", ":");
