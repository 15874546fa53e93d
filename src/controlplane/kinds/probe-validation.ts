import type { FieldError, JsonObject } from "../types.ts";
import { int, list, record, records, text } from "./access.ts";
import type { ContainerScope } from "./container-scope.ts";
import {
  forbiddenField,
  invalidValue,
  nonNegative,
  notSupported,
  required,
} from "./field-error.ts";
import { portOrName } from "./names.ts";

type ActionRule = (action: Readonly<JsonObject>, field: string) => FieldError[];

function httpGetErrors(action: Readonly<JsonObject>, field: string): FieldError[] {
  const out: FieldError[] = [];
  if (text(action["path"]) === "") out.push(required(`${field}.path`));
  out.push(...portOrName(action["port"], `${field}.port`));
  const scheme = action["scheme"];
  if (scheme !== "HTTP" && scheme !== "HTTPS") {
    out.push(notSupported(`${field}.scheme`, scheme, ["HTTP", "HTTPS"]));
  }
  for (const header of records(action["httpHeaders"])) {
    const name = text(header["name"]);
    if (!/^[-A-Za-z0-9]+$/.test(name)) {
      out.push(
        invalidValue(
          `${field}.httpHeaders`,
          name,
          "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
        ),
      );
    }
  }
  return out;
}

function handlerErrors(
  handler: Readonly<JsonObject>,
  field: string,
  grace: number | undefined,
): FieldError[] {
  const rules: Readonly<Record<string, ActionRule>> = {
    exec: (action, path) =>
      list(action["command"]).length === 0 ? [required(`${path}.command`)] : [],
    httpGet: httpGetErrors,
    tcpSocket: (action, path) => portOrName(action["port"], `${path}.port`),
    grpc: (action, path) => portOrName(int(action["port"]) ?? 0, `${path}.port`),
    sleep(action, path) {
      const seconds = int(action["seconds"]) ?? 0;
      return grace !== undefined && (seconds < 0 || seconds > grace)
        ? [
            invalidValue(
              path,
              seconds,
              `must be non-negative and less than terminationGracePeriodSeconds (${grace})`,
            ),
          ]
        : [];
    },
  };
  const present = Object.keys(rules).filter((key) => handler[key] !== undefined);
  const [first, ...others] = present;
  if (first === undefined) return [required(field, "must specify a handler type")];
  return [
    ...(rules[first]?.(record(handler[first]), `${field}.${first}`) ?? []),
    ...others.map((key) =>
      forbiddenField(`${field}.${key}`, "may not specify more than 1 handler type"),
    ),
  ];
}

/** Rules for one of the three probes. */
export function probeErrors(
  container: Readonly<JsonObject>,
  key: "livenessProbe" | "readinessProbe" | "startupProbe",
  path: string,
): FieldError[] {
  if (container[key] === undefined) return [];
  const probe = record(container[key]);
  const field = `${path}.${key}`;
  const out = handlerErrors(probe, field, undefined);
  for (const name of [
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
  ]) {
    out.push(...nonNegative(`${field}.${name}`, probe[name]));
  }
  const grace = int(probe["terminationGracePeriodSeconds"]);
  const gracePath = `${field}.terminationGracePeriodSeconds`;
  if (grace !== undefined && grace <= 0) {
    out.push(invalidValue(gracePath, grace, "must be greater than 0"));
  }
  if (key === "readinessProbe") {
    if (grace !== undefined) {
      out.push(invalidValue(gracePath, grace, "must not be set for readinessProbes"));
    }
  } else if (probe["successThreshold"] !== 1) {
    out.push(invalidValue(`${field}.successThreshold`, probe["successThreshold"], "must be 1"));
  }
  return out;
}

/** Rules for `lifecycle`: hooks and the stop signal. */
export function lifecycleErrors(
  container: Readonly<JsonObject>,
  path: string,
  scope: ContainerScope,
): FieldError[] {
  if (container["lifecycle"] === undefined) return [];
  const lifecycle = record(container["lifecycle"]);
  const field = `${path}.lifecycle`;
  const grace = int(scope.spec["terminationGracePeriodSeconds"]);
  const out: FieldError[] = [];
  for (const key of ["postStart", "preStop"]) {
    if (lifecycle[key] !== undefined) {
      out.push(...handlerErrors(record(lifecycle[key]), `${field}.${key}`, grace));
    }
  }
  if (lifecycle["stopSignal"] !== undefined && scope.spec["os"] === undefined) {
    out.push(
      forbiddenField(
        `${field}.stopSignal`,
        "may not be set for containers with empty `spec.os.name`",
      ),
    );
  }
  return out;
}
