import { forbiddenField, invalidValue } from "../kinds/field-error.ts";
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

const rfc3339 = /^\d{4}-(\d\d)-\d\d[Tt](\d\d):(\d\d):(\d\d)(\.\d+)?([Zz]|[-+]\d\d:\d\d)$/;

/** Why text of that form is no time, as Go's parser says it. */
function rangeTrouble(text: string): string | undefined {
  const [month, hour, minute, second] = (rfc3339.exec(text) ?? []).slice(1, 5).map(Number);
  if (month === undefined || month < 1 || month > 12) return "month out of range";
  if ((hour ?? 0) > 23) return "hour out of range";
  if ((minute ?? 0) > 59) return "minute out of range";
  if ((second ?? 0) > 59) return "second out of range";
  // Which days a month has is known to dates only: they would name one of the next month.
  const date = new Date(`${text.slice(0, 10)}T00:00:00Z`);
  return Number.isNaN(date.getTime()) || date.getUTCMonth() + 1 !== month
    ? "day out of range"
    : undefined;
}

/** Whether a time was given; an empty one is none in particular, which is one. @throws {StatusError} 400 */
function hasTime(query: URLSearchParams, name: string): boolean {
  const text = query.get(name);
  if (text === null) return false;
  if (text === "" || text === "null") return true;
  const quoted = JSON.stringify(text);
  if (!rfc3339.test(text)) {
    throw badRequest(
      `parsing time ${quoted} as "2006-01-02T15:04:05Z07:00": cannot parse ${quoted} as "2006"`,
    );
  }
  const trouble = rangeTrouble(text);
  if (trouble !== undefined) throw badRequest(`parsing time ${quoted}: ${trouble}`);
  return true;
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
      forbiddenField("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified"),
    );
  } else if (sinceSeconds !== undefined && sinceSeconds < 1) {
    errors.push(invalidValue("sinceSeconds", sinceSeconds, "must be greater than 0"));
  }
  // Behind a gate that is off by default (PodLogsQuerySplitStreams, KEP-3288).
  if (query.has("stream")) errors.push(forbiddenField("stream", "may not be specified"));
  if (errors.length > 0) {
    throw invalid({ plural: "pods", kind: "PodLogOptions", group: "" }, name, errors);
  }
}
