import { isRecord, optionalNumber, optionalString } from "../lib/guard.ts";
import { ApiError } from "./errors.ts";

/** `value` when it is a meta/v1 Status that reports a failure. */
function failureStatus(value: unknown): Record<string, unknown> | undefined {
  return isRecord(value) && value["kind"] === "Status" ? value : undefined;
}

function parseJson(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return value;
  } catch {
    return undefined;
  }
}

/** Seconds of a Retry-After header: a number, or a date counted from `now` (milliseconds since the epoch). */
export function parseRetryAfter(header: string | undefined, now: number): number | undefined {
  if (header === undefined) return undefined;
  if (/^\d{1,6}$/.test(header.trim())) return Number(header.trim());
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, Math.ceil((date - now) / 1000));
}

/** The error in a Status object (the body of a failed request, or the object of a watch's ERROR event). */
export function statusToError(
  status: Readonly<Record<string, unknown>>,
  fallback: { readonly code: number; readonly retryAfterSeconds?: number | undefined },
): ApiError {
  const code = optionalNumber(status["code"]) ?? fallback.code;
  const reason = optionalString(status["reason"]) ?? "";
  const details = isRecord(status["details"]) ? status["details"] : {};
  const message = optionalString(status["message"]) ?? "";
  return new ApiError(
    code,
    reason,
    message === "" ? `the server answered ${code} ${reason}`.trim() : message,
    {
      retryAfterSeconds: optionalNumber(details["retryAfterSeconds"]) ?? fallback.retryAfterSeconds,
    },
  );
}

/** The error of a non-2xx answer, whatever its body holds. `what` names the request for people. */
export function responseToError(
  what: string,
  response: {
    readonly status: number;
    readonly body: string;
    readonly retryAfterSeconds: number | undefined;
  },
): ApiError {
  const { status, body, retryAfterSeconds } = response;
  const object = failureStatus(parseJson(body));
  if (object !== undefined) return statusToError(object, { code: status, retryAfterSeconds });
  // A proxy's HTML or the server's plain text: the first line tells enough.
  const text = body.trim().split("\n", 1)[0]?.slice(0, 200) ?? "";
  return new ApiError(status, "", `${what}: HTTP ${status}${text === "" ? "" : `: ${text}`}`, {
    retryAfterSeconds,
  });
}
