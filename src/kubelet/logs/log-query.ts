import { fixedTimestamp } from "./log-line.ts";

/** `PodLogOptions` of one request, checked. */
export interface LogQuery {
  readonly follow: boolean;
  readonly previous: boolean;
  readonly timestamps: boolean;
  readonly stream: "all" | "stdout" | "stderr";
  readonly tailLines: number | undefined;
  readonly limitBytes: number | undefined;
  /** {@link fixedTimestamp} */
  readonly since: string | undefined;
}

/** `undecodable`: no PodLogOptions at all; `invalid`: such that the API does not allow. */
export type LogQueryResult =
  | { readonly kind: "query"; readonly query: LogQuery }
  | { readonly kind: "undecodable" | "invalid" };

class Undecodable extends Error {}

/** As the API machinery turns query parameters into booleans: there is no third way to say no. */
function flag(query: URLSearchParams, name: string): boolean {
  const value = query.get(name);
  return value !== null && value !== "0" && value.toLowerCase() !== "false";
}

const int64 = 2n ** 63n;

function integer(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name);
  if (text === null) return undefined;
  if (!/^[-+]?\d{1,30}$/.test(text)) throw new Undecodable(name);
  const value = BigInt(text.replace("+", ""));
  if (value >= int64 || value < -int64) throw new Undecodable(name);
  return Number(value);
}

/** Kept from the time of Docker's own parameter: `tail=all` means no tail, and it goes before `tailLines`. */
function tailOf(query: URLSearchParams): number | undefined {
  const tail = query.get("tail") ?? "";
  if (tail === "all") return undefined;
  return tail === "" ? integer(query, "tailLines") : integer(query, "tail");
}

/** The zero time, which nothing is older than, is what an empty value means. */
function timeOf(query: URLSearchParams): string | undefined {
  const text = query.get("sinceTime");
  if (text === null) return undefined;
  if (text === "" || text === "null") return "";
  const fixed = fixedTimestamp(text);
  if (fixed === undefined) throw new Undecodable("sinceTime");
  return fixed;
}

const streams = { All: "all", Stdout: "stdout", Stderr: "stderr" } as const;

function streamOf(query: URLSearchParams): LogQuery["stream"] | undefined {
  const text = query.get("stream") ?? "All";
  return text === "All" || text === "Stdout" || text === "Stderr" ? streams[text] : undefined;
}

/** Reads PodLogOptions (and KEP-3288's `stream`) as the kubelet does. `nowMs`: milliseconds since the epoch. */
export function parseLogQuery(query: URLSearchParams, nowMs: number): LogQueryResult {
  try {
    return decode(query, nowMs);
  } catch (error) {
    if (error instanceof Undecodable) return { kind: "undecodable" };
    throw error;
  }
}

function decode(query: URLSearchParams, nowMs: number): LogQueryResult {
  const sinceSeconds = integer(query, "sinceSeconds");
  const sinceTime = timeOf(query);
  const tailLines = tailOf(query);
  const limitBytes = integer(query, "limitBytes");
  const stream = streamOf(query);
  const bothSinces = sinceSeconds !== undefined && sinceTime !== undefined;
  const tooSmall = (value: number | undefined, least: number): boolean =>
    value !== undefined && value < least;
  if (stream === undefined || bothSinces) return { kind: "invalid" };
  // Upstream's rule: a tail of one stream could not be counted without reading everything.
  if (stream !== "all" && tailLines !== undefined) return { kind: "invalid" };
  if (tooSmall(sinceSeconds, 1) || tooSmall(tailLines, 0) || tooSmall(limitBytes, 1)) {
    return { kind: "invalid" };
  }
  const since = sinceSeconds === undefined ? sinceTime : secondsAgo(sinceSeconds, nowMs);
  return {
    kind: "query",
    query: {
      follow: flag(query, "follow"),
      previous: flag(query, "previous"),
      timestamps: flag(query, "timestamps"),
      stream,
      tailLines,
      limitBytes,
      since: since === "" ? undefined : since,
    },
  };
}

/** Empty for a moment before all that a Date can name: everything is younger. */
function secondsAgo(seconds: number, nowMs: number): string {
  const date = new Date(nowMs - seconds * 1000);
  if (Number.isNaN(date.getTime()) || date.getTime() < 0) return "";
  return fixedTimestamp(date.toISOString()) ?? "";
}
