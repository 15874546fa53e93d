import type { FieldError, JsonObject } from "../types.ts";
import { int, list, record, records, strings, text } from "./access.ts";
import {
  at,
  duplicate,
  forbiddenField,
  invalidValue,
  notSupported,
  required,
} from "./field-error.ts";
import { descendingPath } from "./path-validation.ts";

const maxID = 2_147_483_647;

function identity(owner: Readonly<JsonObject>, key: string, field: string): FieldError[] {
  const id = int(owner[key]);
  return id !== undefined && (id < 0 || id > maxID)
    ? [invalidValue(`${field}.${key}`, id, `must be between 0 and ${maxID}, inclusive`)]
    : [];
}

/** seccompProfile and appArmorProfile share their shape; AppArmor calls a local profile by name, seccomp by path. */
function profileErrors(owner: Readonly<JsonObject>, key: string, parent: string): FieldError[] {
  if (owner[key] === undefined) return [];
  const profile = record(owner[key]);
  const field = `${parent}.${key}`;
  const type = text(profile["type"]);
  const local = text(profile["localhostProfile"]);
  const path = `${field}.localhostProfile`;
  if (type === "Localhost") {
    if (local === "") {
      return [
        required(
          path,
          key === "seccompProfile"
            ? "must be set when seccomp type is Localhost"
            : "must be set when AppArmor type is Localhost",
        ),
      ];
    }
    return key === "seccompProfile" ? descendingPath(local, path) : [];
  }
  const out: FieldError[] = [];
  if (profile["localhostProfile"] !== undefined) {
    const name = key === "seccompProfile" ? "seccomp" : "AppArmor";
    out.push(
      key === "seccompProfile"
        ? invalidValue(path, local, `can only be set when ${name} type is Localhost`)
        : invalidValue(path, local, `can only be set when ${name} type is Localhost`),
    );
  }
  if (type === "")
    out.push(required(`${field}.type`, "type is required when seccompProfile is set"));
  else if (type !== "RuntimeDefault" && type !== "Unconfined") {
    out.push(notSupported(`${field}.type`, type, ["Localhost", "RuntimeDefault", "Unconfined"]));
  }
  return out;
}

/** Rules for a container's `securityContext`. */
export function validateContainerSecurity(
  container: Readonly<JsonObject>,
  path: string,
  spec: Readonly<JsonObject>,
): FieldError[] {
  if (container["securityContext"] === undefined) return [];
  const security = record(container["securityContext"]);
  const field = `${path}.securityContext`;
  const out: FieldError[] = [
    ...identity(security, "runAsUser", field),
    ...identity(security, "runAsGroup", field),
  ];
  const procMount = security["procMount"];
  if (procMount !== undefined && procMount !== "Default" && procMount !== "Unmasked") {
    out.push(notSupported(`${field}.procMount`, procMount, ["Default", "Unmasked"]));
  }
  if (procMount === "Unmasked" && spec["hostUsers"] !== false) {
    out.push(
      invalidValue(`${field}.procMount`, procMount, "`hostUsers` must be false to use `Unmasked`"),
    );
  }
  out.push(...profileErrors(security, "seccompProfile", field));
  if (security["allowPrivilegeEscalation"] === false) {
    if (security["privileged"] === true) {
      out.push(
        invalidValue(
          field,
          security,
          "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
      );
    }
    if (strings(record(security["capabilities"])["add"]).includes("CAP_SYS_ADMIN")) {
      out.push(
        invalidValue(
          field,
          security,
          "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
        ),
      );
    }
  }
  return [...out, ...profileErrors(security, "appArmorProfile", field)];
}

const sysctlName = /^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$/;

function sysctlErrors(security: Readonly<JsonObject>, field: string): FieldError[] {
  const seen = new Set<string>();
  const out: FieldError[] = [];
  records(security["sysctls"]).forEach((sysctl, index) => {
    const path = `${at(field, index)}.name`;
    const name = text(sysctl["name"]);
    if (name === "") out.push(required(path));
    else if (name.length > 253 || !sysctlName.test(name)) {
      out.push(
        invalidValue(
          path,
          name,
          "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
        ),
      );
    } else if (seen.has(name)) out.push(duplicate(path, name));
    seen.add(name);
  });
  return out;
}

function sysctlNamespaceErrors(
  security: Readonly<JsonObject>,
  spec: Readonly<JsonObject>,
  field: string,
): FieldError[] {
  return records(security["sysctls"]).flatMap((sysctl, index) => {
    const name = text(sysctl["name"]).replaceAll("/", ".");
    const path = `${at(field, index)}.name`;
    if (spec["hostNetwork"] === true && name.startsWith("net.")) {
      return [invalidValue(path, name, "may not be specified when 'hostNetwork' is true")];
    }
    if (spec["hostIPC"] === true && /^(kernel\.(shm|msg|sem)|fs\.mqueue\.)/.test(name)) {
      return [invalidValue(path, name, "may not be specified when 'hostIPC' is true")];
    }
    return [];
  });
}

/** Rules for `spec.securityContext` and the host namespaces beside it. */
export function validatePodSecurity(spec: Readonly<JsonObject>, path: string): FieldError[] {
  const security = record(spec["securityContext"]);
  const field = `${path}.securityContext`;
  const out: FieldError[] = [
    ...identity(security, "fsGroup", field),
    ...identity(security, "runAsUser", field),
    ...identity(security, "runAsGroup", field),
  ];
  list(security["supplementalGroups"]).forEach((group, index) => {
    const id = int(group) ?? 0;
    if (id >= 0 && id <= maxID) return;
    out.push(
      invalidValue(
        at(`${field}.supplementalGroups`, index),
        id,
        `must be between 0 and ${maxID}, inclusive`,
      ),
    );
  });
  if (spec["shareProcessNamespace"] === true && spec["hostPID"] === true) {
    out.push(
      invalidValue(
        `${field}.shareProcessNamespace`,
        true,
        "ShareProcessNamespace and HostPID cannot both be enabled",
      ),
    );
  }
  out.push(
    ...sysctlErrors(security, `${field}.sysctls`),
    ...sysctlNamespaceErrors(security, spec, `${field}.sysctls`),
  );
  const choices: Readonly<Record<string, readonly string[]>> = {
    fsGroupChangePolicy: ["Always", "OnRootMismatch"],
    supplementalGroupsPolicy: ["Merge", "Strict"],
    seLinuxChangePolicy: ["MountOption", "Recursive"],
  };
  for (const [key, supported] of Object.entries(choices)) {
    const value = security[key];
    if (value !== undefined && !supported.includes(text(value))) {
      out.push(notSupported(`${field}.${key}`, value, supported));
    }
  }
  return [
    ...out,
    ...profileErrors(security, "seccompProfile", field),
    ...profileErrors(security, "appArmorProfile", field),
    ...hostUserErrors(spec, path),
  ];
}

function hostUserErrors(spec: Readonly<JsonObject>, path: string): FieldError[] {
  if (spec["hostUsers"] !== false) return [];
  return (
    [
      ["hostNetwork", "hostNetwork"],
      ["hostPID", "HostPID"],
      ["hostIPC", "HostIPC"],
    ] as const
  )
    .filter(([key]) => spec[key] === true)
    .map(([, shown]) => forbiddenField(`${path}.${shown}`, "when `hostUsers` is false"));
}
