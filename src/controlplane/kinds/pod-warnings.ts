import type { JsonObject } from "../types.ts";
import { dig, int, record, records, text } from "./access.ts";
import { at } from "./field-error.ts";
import { placementWarnings } from "./placement-warnings.ts";
import { volumeWarnings } from "./volume-warnings.ts";

interface Placed {
  readonly path: string;
  readonly value: JsonObject;
}

function containersOf(spec: Readonly<JsonObject>, prefix: string): Placed[] {
  return ["initContainers", "containers"].flatMap((key) =>
    records(spec[key]).map((value, index) => ({ path: at(`${prefix}.${key}`, index), value })),
  );
}

function fractions({ path, value }: Placed): string[] {
  return ["limits", "requests"].flatMap((side) =>
    ["memory", "ephemeral-storage"].flatMap((name) => {
      const amount = text(dig(value, "resources", side, name));
      if (!amount.endsWith("m")) return [];
      const quoted = JSON.stringify(amount);
      return [
        `${path}.resources.${side}[${name}]: fractional byte value ${quoted} is invalid, must be an integer`,
      ];
    }),
  );
}

function hiddenVariables({ path, value }: Placed): string[] {
  const seen = new Set<string>();
  const out: string[] = [];
  records(value["env"]).forEach((variable, index) => {
    const name = text(variable["name"]);
    const reference = `$(${name})`;
    const worth = text(variable["value"]);
    // X="$(X)123" extends the earlier value and is fine.
    const extended = worth.includes(reference) && worth !== reference;
    if (seen.has(name) && !extended) {
      const quoted = JSON.stringify(name);
      out.push(
        `${at(`${path}.env`, index)}: hides previous definition of ${quoted}, which may be dropped when using apply`,
      );
    }
    seen.add(name);
  });
  return out;
}

function portClash(port: JsonObject, other: JsonObject): string | undefined {
  const [ip, otherIP] = [text(port["hostIP"]), text(other["hostIP"])];
  const [host, otherHost] = [int(port["hostPort"]) ?? 0, int(other["hostPort"]) ?? 0];
  if (ip === otherIP && host === otherHost) return "duplicate";
  if (host === 0 || otherHost === 0) return "overlapping";
  if (host === otherHost && (ip === "") !== (otherIP === "")) return "dangerously ambiguous";
  return undefined;
}

function portWarnings(containers: readonly Placed[]): string[] {
  const ports = containers.flatMap(({ path, value }) =>
    records(value["ports"]).map((port, index) => ({
      path: at(`${path}.ports`, index),
      value: port,
    })),
  );
  const clashes: string[] = [];
  const names: string[] = [];
  ports.forEach(({ path, value }, index) => {
    const earlier = ports.slice(0, index);
    const hostIP = text(value["hostIP"]);
    if (hostIP !== "" && (int(value["hostPort"]) ?? 0) === 0) {
      const written = `{Name:${text(value["name"])} HostPort:0 ContainerPort:${int(value["containerPort"]) ?? 0} Protocol:${text(value["protocol"])} HostIP:${hostIP}}`;
      clashes.push(`${path}: hostIP set without hostPort: ${written}`);
    }
    for (const other of earlier) {
      const same =
        other.value["containerPort"] === value["containerPort"] &&
        other.value["protocol"] === value["protocol"];
      const clash = same ? portClash(value, other.value) : undefined;
      if (clash !== undefined) clashes.push(`${path}: ${clash} port definition with ${other.path}`);
    }
    const name = text(value["name"]);
    const first = earlier.find((other) => name !== "" && other.value["name"] === name)?.path;
    if (first !== undefined)
      names.push(
        `${path}: duplicate port name ${JSON.stringify(name)} with ${first}, services and probes that select ports by name will use ${first}`,
      );
  });
  return [...clashes, ...names];
}

function repeated(items: readonly JsonObject[], key: string, path: string, what: string): string[] {
  const seen = new Set<string>();
  return items.flatMap((item, index) => {
    const value = text(item[key]);
    const again = seen.has(value);
    seen.add(value);
    if (!again) return [];
    return [`${at(path, index)}.${key}: duplicate ${what} ${JSON.stringify(value)}`];
  });
}

/** What the API warns of in a valid pod spec; `path` is where the spec is: `spec`, `spec.template.spec`. */
export function podSpecWarnings(value: unknown, path: string): string[] {
  const spec = record(value);
  const containers = containersOf(spec, path);
  const grace = int(spec["terminationGracePeriodSeconds"]) ?? 0;
  const secrets = records(spec["imagePullSecrets"]);
  return [
    ...placementWarnings(spec, path),
    ...volumeWarnings(spec, path),
    ...repeated(records(spec["hostAliases"]), "ip", `${path}.hostAliases`, "ip"),
    ...repeated(secrets, "name", `${path}.imagePullSecrets`, "name"),
    ...secrets.flatMap(({ name }, index) =>
      text(name) === ""
        ? [`${at(`${path}.imagePullSecrets`, index)}.name: invalid empty name ""`]
        : [],
    ),
    ...containers.flatMap((container) => [...fractions(container), ...hiddenVariables(container)]),
    ...portWarnings(containers),
    ...(grace < 0
      ? [
          `${path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1`,
        ]
      : []),
  ];
}
