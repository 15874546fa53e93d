import type { FieldError, JsonObject } from "../types.ts";
import { text } from "./access.ts";
import { invalidAll, invalidValue, notSupported, required } from "./field-error.ts";
import { qualifiedName, subdomainName } from "./names.ts";
import { quantityOf } from "./quantity.ts";

const envFieldPaths = [
  "metadata.name",
  "metadata.namespace",
  "metadata.uid",
  "spec.nodeName",
  "spec.serviceAccountName",
  "status.hostIP",
  "status.hostIPs",
  "status.podIP",
  "status.podIPs",
];
const volumeFieldPaths = [
  "metadata.annotations",
  "metadata.labels",
  "metadata.name",
  "metadata.namespace",
  "metadata.uid",
];
const resourceFields = [
  "limits.cpu",
  "limits.ephemeral-storage",
  "limits.memory",
  "requests.cpu",
  "requests.ephemeral-storage",
  "requests.memory",
];
const sizeDivisors = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";

/** Field labels the downward API converts at all; the others do not exist. */
const knownFieldPaths = new Set([...envFieldPaths, ...volumeFieldPaths, "spec.host"]);

/** `fieldRef` of an environment variable or of a downwardAPI file. */
export function fieldReference(
  reference: Readonly<JsonObject>,
  field: string,
  where: "env" | "volume",
): FieldError[] {
  const version = text(reference["apiVersion"]);
  const path = text(reference["fieldPath"]);
  if (version === "") return [required(`${field}.apiVersion`)];
  if (path === "") return [required(`${field}.fieldPath`)];
  const subscript = /^(.+)\['(.*)'\]$/.exec(path);
  if (subscript !== null) {
    const [, base = "", key = ""] = subscript;
    if (base === "metadata.annotations") {
      return invalidAll(field, key.toLowerCase(), qualifiedName(key.toLowerCase()));
    }
    if (base === "metadata.labels") return invalidAll(field, key, qualifiedName(key));
    return [
      invalidValue(
        `${field}.fieldPath`,
        path,
        `error converting fieldPath: field label does not support subscript: ${path}`,
      ),
    ];
  }
  if (version !== "v1") {
    return [
      invalidValue(
        `${field}.fieldPath`,
        path,
        `error converting fieldPath: unsupported pod version: ${version}`,
      ),
    ];
  }
  if (!knownFieldPaths.has(path)) {
    return [
      invalidValue(
        `${field}.fieldPath`,
        path,
        `error converting fieldPath: field label not supported: ${path}`,
      ),
    ];
  }
  const supported = where === "env" ? envFieldPaths : volumeFieldPaths;
  return supported.includes(path) ? [] : [notSupported(`${field}.fieldPath`, path, supported)];
}

function divisorErrors(resource: string, divisor: unknown, field: string): FieldError[] {
  const quantity = quantityOf(divisor);
  if (quantity === undefined || quantity.nanos === 0n) return [];
  const shown = text(divisor);
  const kind = resource.slice(resource.indexOf(".") + 1);
  if (kind === "cpu") {
    return ["1m", "1"].includes(shown)
      ? []
      : [
          invalidValue(
            `${field}.divisor`,
            resource,
            "only divisor's values 1m and 1 are supported with the cpu resource",
          ),
        ];
  }
  if (sizeDivisors.split(", ").includes(shown)) return [];
  let what = "memory";
  if (kind === "ephemeral-storage") what = "local ephemeral storage";
  else if (kind.startsWith("hugepages-")) what = "hugepages";
  return [
    invalidValue(
      `${field}.divisor`,
      resource,
      `only divisor's values ${sizeDivisors} are supported with the ${what} resource`,
    ),
  ];
}

/** `resourceFieldRef` of an environment variable or of a downwardAPI file. */
export function resourceReference(
  reference: Readonly<JsonObject>,
  field: string,
  where: "env" | "volume",
): FieldError[] {
  const resource = text(reference["resource"]);
  const out: FieldError[] = [];
  if (where === "volume" && text(reference["containerName"]) === "") {
    out.push(required(`${field}.containerName`));
  } else if (resource === "") out.push(required(`${field}.resource`));
  else if (!resourceFields.includes(resource) && !/^(requests|limits)\.hugepages-/.test(resource)) {
    out.push(notSupported(`${field}.resource`, resource, resourceFields));
  }
  return [...out, ...divisorErrors(resource, reference["divisor"], field)];
}

/** `{name}` references to ConfigMaps and Secrets with a key (`configMapKeyRef`, `secretKeyRef`). */
export function objectName(name: unknown, field: string): FieldError[] {
  return invalidAll(field, text(name), subdomainName(text(name), false));
}
