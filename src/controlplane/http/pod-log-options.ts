import { forbiddenField, invalidValue, notSupported } from "../kinds/field-error.ts";
import { badRequest, invalid } from "../status-error.ts";
import type { FieldError } from "../types.ts";

const int64 = 2n ** 63n;

/** As Go's strconv reads it, and complains. @throws {StatusError} 400 */
function integer(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name);
  if (text === null) return undefined;
  const refuse = (why: string): never => {
    throw badRequest(`strconv.ParseInt: parsing ${JSON.stringify(text)}: ${why}`);
  };
  if (!/^[-+]?\d+$/.test(text)) refuse("invalid syntax");
  const value = text.length > 30 ? int64 : BigInt(text.replace("+", ""));
  if (value >= int64 || value < -int64) refuse("value out of range");
  return Number(value);
}

const rfc3339 = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[-+]\d\d:\d\d)$/;

/** Whether a time was given; an empty one is none in particular, which is one. @throws {StatusError} 400 */
function hasTime(query: URLSearchParams, name: string): boolean {
  const text = query.get(name);
  if (text === null) return false;
  if (text === "" || text === "null") return true;
  if (!rfc3339.test(text) || Number.isNaN(Date.parse(text))) {
    const quoted = JSON.stringify(text);
    throw badRequest(
      `parsing time ${quoted} as "2006-01-02T15:04:05Z07:00": cannot parse ${quoted} as "2006"`,
    );
  }
  return true;
}

const streams = ["All", "Stderr", "Stdout"];

function streamErrors(query: URLSearchParams): readonly FieldError[] {
  const stream = query.get("stream") ?? "All";
  if (!streams.includes(stream)) return [notSupported("stream", stream, streams)];
  return stream !== "All" && query.has("tailLines")
    ? [forbiddenField("", "`tailLines` and specific `stream` are mutually exclusive for now")]
    : [];
}

/**
 * Checks the parameters of pods/log (ValidatePodLogOptions), before anything is looked up.
 *
 * @param name Of the pod.
 * @throws {StatusError} 400 for what is no PodLogOptions, 422 for such as are not allowed.
 */
export function checkPodLogOptions(name: string, query: URLSearchParams): void {
  const sinceSeconds = integer(query, "sinceSeconds");
  const sinceTime = hasTime(query, "sinceTime");
  const tailLines = integer(query, "tailLines");
  const limitBytes = integer(query, "limitBytes");
  const errors: FieldError[] = [];
  if (tailLines !== undefined && tailLines < 0) {
    errors.push(invalidValue("tailLines", tailLines, "must be greater than or equal to 0"));
  }
  if (limitBytes !== undefined && limitBytes < 1) {
    errors.push(invalidValue("limitBytes", limitBytes, "must be greater than 0"));
  }
  if (sinceSeconds !== undefined && sinceTime) {
    errors.push(
      forbiddenField("", "at most one of `sinceTime` or `sinceSeconds` may be specified"),
    );
  } else if (sinceSeconds !== undefined && sinceSeconds < 1) {
    errors.push(invalidValue("sinceSeconds", sinceSeconds, "must be greater than 0"));
  }
  errors.push(...streamErrors(query));
  if (errors.length > 0) {
    throw invalid({ plural: "pods", kind: "PodLogOptions", group: "" }, name, errors);
  }
}
