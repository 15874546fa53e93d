import { fixedTimestamp } from "./log-line.ts";

/** What to take of a service's log. */
export interface JournalOptions {
  /** {@link fixedTimestamp} */
  readonly sinceTime?: string;
  /** {@link fixedTimestamp} */
  readonly untilTime?: string;
  readonly tailLines?: number;
  /** 0 is the running boot, -1 the one before it, and so on. */
  readonly boot?: number;
  /** PCRE2; empty for all lines. */
  readonly pattern: string;
}

/** A node log query (KEP-2258): services, or one file below /var/log. */
export interface NodeLogQuery {
  readonly services: readonly string[];
  readonly files: readonly string[];
  readonly options: JournalOptions;
}

export type NodeLogQueryResult =
  /** The request is for a path, not a query. */
  | { readonly kind: "none" }
  | { readonly kind: "query"; readonly query: NodeLogQuery }
  | { readonly kind: "undecodable"; readonly message: string };

const maxTailLines = 100_000;
const maxServices = 4;
const maxServiceLength = 256;

/** Texts of field errors as the API machinery writes them. */
function invalid(field: string, value: unknown, detail: string): string {
  return `${field}: Invalid value: ${JSON.stringify(value)}: ${detail}`;
}

/** One text of several errors, each said once. */
export function aggregateText(errors: readonly string[]): string {
  const [first = "", ...others] = new Set(errors);
  return others.length === 0 ? first : `[${[first, ...others].join(", ")}]`;
}

function readInteger(text: string): number | string {
  if (!/^[-+]?\d+$/.test(text))
    return `strconv.Atoi: parsing ${JSON.stringify(text)}: invalid syntax`;
  const value = Number(text);
  return Number.isSafeInteger(value)
    ? value
    : `strconv.Atoi: parsing ${JSON.stringify(text)}: value out of range`;
}

/** Reads the parameters; whether they may be is {@link validateNodeLogQuery}'s to say. */
export function parseNodeLogQuery(parameters: URLSearchParams): NodeLogQueryResult {
  const errors: string[] = [];
  const queries = parameters.getAll("query");
  // A slash says that a file is meant.
  const files = queries.filter((text) => /[/\\]/.test(text));
  const services = queries.filter((text) => !/[/\\]/.test(text) && text.trim() !== "");
  if (queries.length > 0 && files.length + services.length === 0) {
    errors.push(invalid("query", queries, "query cannot be empty"));
  }
  const time = (name: string): string | undefined => {
    const text = parameters.get(name) ?? "";
    if (text === "") return undefined;
    const fixed = fixedTimestamp(text);
    if (fixed === undefined) errors.push(invalid(name, text, "invalid time format"));
    return fixed;
  };
  const integer = (name: string): number | undefined => {
    const text = parameters.get(name) ?? "";
    if (text === "") return undefined;
    const value = readInteger(text);
    if (typeof value === "number") return value;
    errors.push(invalid(name, text, value));
    return undefined;
  };
  const given = {
    sinceTime: time("sinceTime"),
    untilTime: time("untilTime"),
    boot: integer("boot"),
    tailLines: integer("tailLines"),
  };
  if (errors.length > 0) return { kind: "undecodable", message: aggregateText(errors) };
  const options: JournalOptions = {
    ...defined(given),
    pattern: parameters.get("pattern") ?? "",
  };
  if (queries.length === 0 && !hasOptions(options)) return { kind: "none" };
  return { kind: "query", query: { services, files, options } };
}

type Defined<T> = { readonly [Name in keyof T]?: Exclude<T[Name], undefined> };

function defined<T extends object>(given: T): Defined<T>;
function defined(given: object): object {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/** Whether anything but the source is chosen: that is only possible for services. */
export function hasOptions({ pattern, ...others }: JournalOptions): boolean {
  return pattern !== "" || Object.keys(others).length > 0;
}

/** What the query must not be, as field errors; empty when it is well. Whether a file is there is not asked. */
export function validateNodeLogQuery({ services, files, options }: NodeLogQuery): string[] {
  return [
    ...services.flatMap(serviceErrors),
    ...(services.length > maxServices
      ? [`query: Too many: ${services.length}: must have at most ${maxServices} items`]
      : []),
    ...sourceErrors(services, files, options),
    ...optionErrors(options),
  ];
}

function serviceErrors(service: string): readonly string[] {
  if (service.length > maxServiceLength) {
    return [invalid("query", service, `length must be less than ${maxServiceLength}`)];
  }
  return /^[a-zA-Z\-_.:0-9@]+$/.test(service)
    ? []
    : [invalid("query", service, "input contains unsupported characters")];
}

function sourceErrors(
  services: readonly string[],
  files: readonly string[],
  options: JournalOptions,
): readonly string[] {
  if (files.length + services.length === 0) {
    return ["query: Required value: cannot be empty with options"];
  }
  if (files.length > 0 && services.length > 0) {
    const both = `[${files.join(" ")}], [${services.join(" ")}]`;
    return [invalid("query", both, "cannot specify a file and service")];
  }
  if (files.length > 1) return [invalid("query", files, "cannot specify more than one file")];
  if (files.length === 1 && hasOptions(options)) {
    return [invalid("query", files, "cannot specify file with options")];
  }
  return [];
}

function optionErrors(options: JournalOptions): readonly string[] {
  const { boot = 0, pattern, sinceTime = "", tailLines = 0, untilTime } = options;
  const errors: string[] = [];
  if (untilTime !== undefined && sinceTime > untilTime) {
    errors.push(invalid("untilTime", shortTime(untilTime), "must be after `sinceTime`"));
  }
  if (boot > 0) errors.push(invalid("boot", boot, "must be less than 1"));
  if (tailLines < 0 || tailLines > maxTailLines) {
    errors.push(
      invalid("tailLines", tailLines, `must be between 0 and ${maxTailLines}, inclusive`),
    );
  }
  const trouble = patternTrouble(pattern);
  if (trouble !== undefined) errors.push(invalid("pattern", pattern, trouble));
  return errors;
}

/** Why nobody can search for `pattern`. What only this language does not know is left to journalctl to judge. */
function patternTrouble(pattern: string): string | undefined {
  if (pattern.includes("\0")) return "error parsing regexp: invalid escape sequence";
  if (/\(\?|\\[^\w]|\\[AzZQEKGhHNRX]|\[\[:/.test(pattern)) return undefined;
  try {
    RegExp(pattern);
    return undefined;
  } catch (error) {
    const reason = error instanceof Error ? error.message.replace(/^.*: /s, "") : "";
    return `error parsing regexp: ${reason}: \`${pattern}\``;
  }
}

function shortTime(fixed: string): string {
  return fixed.replace(/\.?0*Z$/, "Z");
}

/** Arguments of journalctl for these services. Each value is part of one argument: none can become an option. */
export function journalArguments(services: readonly string[], options: JournalOptions): string[] {
  const { boot, pattern, sinceTime, tailLines, untilTime } = options;
  return [
    "--utc",
    "--no-pager",
    "--output=short-precise",
    ...(sinceTime === undefined ? [] : [`--since=${journalTime(sinceTime)}`]),
    ...(untilTime === undefined ? [] : [`--until=${journalTime(untilTime)}`]),
    ...(tailLines === undefined ? [] : ["--pager-end", `--lines=${tailLines}`]),
    ...services.map((service) => `--unit=${service}`),
    ...(pattern === "" ? [] : [`--grep=${pattern}`]),
    ...(boot === undefined ? [] : [`--boot=${boot}`]),
  ];
}

/** `2026-01-01 00:00:00 UTC`: whole seconds, as the kubelet asks, and not of the host's time zone. */
function journalTime(fixed: string): string {
  return `${fixed.slice(0, 10)} ${fixed.slice(11, 19)} UTC`;
}
