import type { FieldError, JsonObject } from "../types.ts";
import { int, record, records, semanticEqual, text } from "./access.ts";
import type { ContainerScope } from "./container-scope.ts";
import {
  at,
  duplicate,
  enumeration,
  forbiddenField,
  invalidAll,
  invalidValue,
  notFoundValue,
  required,
  tooMany,
} from "./field-error.ts";
import { validateMounts } from "./mount-validation.ts";
import {
  configKeyMessages,
  dns1123Label,
  envNameMessages,
  portNameMessages,
  portNumberMessages,
} from "./names.ts";
import { noBacksteps } from "./path-validation.ts";
import { lifecycleErrors, probeErrors } from "./probe-validation.ts";
import { fieldReference, resourceReference, objectName } from "./reference-validation.ts";
import { validateResources } from "./resource-validation.ts";
import { validateContainerSecurity } from "./security-validation.ts";

const protocols = ["SCTP", "TCP", "UDP"];
const sidecarOnly = "may not be set for init containers without restartPolicy=Always";

function portErrors(ports: readonly JsonObject[], field: string): FieldError[] {
  const out: FieldError[] = [];
  const names = new Set<string>();
  ports.forEach((port, index) => {
    const path = at(field, index);
    const name = text(port["name"]);
    if (name !== "") {
      const messages = portNameMessages(name);
      out.push(...invalidAll(`${path}.name`, name, messages));
      if (messages.length === 0 && names.has(name)) out.push(duplicate(`${path}.name`, name));
      names.add(name);
    }
    const containerPort = int(port["containerPort"]) ?? 0;
    if (containerPort === 0) out.push(required(`${path}.containerPort`));
    else {
      out.push(
        ...invalidAll(`${path}.containerPort`, containerPort, portNumberMessages(containerPort)),
      );
    }
    const hostPort = int(port["hostPort"]) ?? 0;
    if (hostPort !== 0) {
      out.push(...invalidAll(`${path}.hostPort`, hostPort, portNumberMessages(hostPort)));
    }
    out.push(...enumeration(`${path}.protocol`, port["protocol"], protocols));
  });
  return out;
}

function keySelector(selector: Readonly<JsonObject>, field: string): FieldError[] {
  const key = text(selector["key"]);
  return [
    ...objectName(selector["name"], `${field}.name`),
    ...(key === ""
      ? [required(`${field}.key`)]
      : invalidAll(`${field}.key`, key, configKeyMessages(key))),
  ];
}

function fileKeySelector(selector: Readonly<JsonObject>, field: string): FieldError[] {
  const out: FieldError[] = [];
  const key = text(selector["key"]);
  const volume = text(selector["volumeName"]);
  const path = text(selector["path"]);
  if (key === "") out.push(required(`${field}.key`));
  else out.push(...invalidAll(`${field}.key`, key, envNameMessages(key)));
  if (volume === "") out.push(required(`${field}.volumeName`));
  else out.push(...invalidAll(`${field}.volumeName`, volume, dns1123Label(volume)));
  if (path === "") out.push(required(`${field}.path`));
  else out.push(...noBacksteps(path, `${field}.path`));
  return out;
}

type ReferenceRule = (reference: Readonly<JsonObject>, field: string) => FieldError[];

const envSources: Readonly<Record<string, ReferenceRule>> = {
  fieldRef: (reference, field) => fieldReference(reference, field, "env"),
  resourceFieldRef: (reference, field) => resourceReference(reference, field, "env"),
  configMapKeyRef: keySelector,
  secretKeyRef: keySelector,
  fileKeyRef: fileKeySelector,
};

function envErrors(container: Readonly<JsonObject>, field: string): FieldError[] {
  const out: FieldError[] = [];
  records(container["env"]).forEach((variable, index) => {
    const path = at(`${field}.env`, index);
    const name = text(variable["name"]);
    if (name === "") out.push(required(`${path}.name`));
    else out.push(...invalidAll(`${path}.name`, name, envNameMessages(name)));
    if (variable["valueFrom"] === undefined) return;
    const from = record(variable["valueFrom"]);
    const fromPath = `${path}.valueFrom`;
    const present = Object.keys(envSources).filter((key) => from[key] !== undefined);
    for (const key of present) {
      out.push(...(envSources[key]?.(record(from[key]), `${fromPath}.${key}`) ?? []));
    }
    if (present.length === 0) {
      out.push(
        invalidValue(
          fromPath,
          "",
          "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
      );
    } else if (text(variable["value"]) !== "") {
      out.push(invalidValue(fromPath, "", "may not be specified when `value` is not empty"));
    } else if (present.length > 1) {
      out.push(invalidValue(fromPath, "", "may not have more than one field specified at a time"));
    }
  });
  return out;
}

function envFromErrors(container: Readonly<JsonObject>, field: string): FieldError[] {
  const out: FieldError[] = [];
  records(container["envFrom"]).forEach((source, index) => {
    const path = at(`${field}.envFrom`, index);
    const prefix = text(source["prefix"]);
    if (prefix !== "") out.push(...invalidAll(`${path}.prefix`, prefix, envNameMessages(prefix)));
    const present = ["configMapRef", "secretRef"].filter((key) => source[key] !== undefined);
    for (const key of present) {
      const name = text(record(source[key])["name"]);
      if (name === "") out.push(required(`${path}.${key}.name`));
      else out.push(...objectName(name, `${path}.${key}.name`));
    }
    if (present.length === 0) {
      out.push(
        invalidValue(`${field}.envFrom`, "", "must specify one of: `configMapRef` or `secretRef`"),
      );
    } else if (present.length > 1) {
      out.push(
        invalidValue(
          `${field}.envFrom`,
          "",
          "may not have more than one field specified at a time",
        ),
      );
    }
  });
  return out;
}

function restartRules(container: Readonly<JsonObject>, path: string): FieldError[] {
  const policy = container["restartPolicy"];
  const rules = records(container["restartPolicyRules"]);
  const out: FieldError[] = [];
  if (policy === undefined) {
    if (rules.length === 0) return [];
    out.push(
      required(`${path}.restartPolicy`, "must specify restartPolicy when restart rules are used"),
    );
  } else {
    out.push(...enumeration(`${path}.restartPolicy`, policy, ["Always", "Never", "OnFailure"]));
  }
  const field = `${path}.restartPolicyRules`;
  if (rules.length > 20) out.push(tooMany(field, rules.length, 20));
  rules.forEach((rule, index) => {
    const rulePath = at(field, index);
    out.push(
      ...enumeration(`${rulePath}.action`, rule["action"], ["Restart", "RestartAllContainers"]),
    );
    if (rule["exitCodes"] === undefined) {
      out.push(required(`${rulePath}.exitCodes`, "must be specified"));
      return;
    }
    const codes = record(rule["exitCodes"]);
    out.push(...enumeration(`${rulePath}.exitCodes.operator`, codes["operator"], ["In", "NotIn"]));
    const values = Array.isArray(codes["values"]) ? codes["values"].length : 0;
    if (values > 255) out.push(tooMany(`${rulePath}.exitCodes.values`, values, 255));
  });
  return out;
}

function resizeErrors(
  container: Readonly<JsonObject>,
  path: string,
  scope: ContainerScope,
): FieldError[] {
  const field = `${path}.resizePolicy`;
  const seen = new Set<unknown>();
  const out: FieldError[] = [];
  records(container["resizePolicy"]).forEach((policy, index) => {
    const resource = policy["resourceName"];
    if (seen.has(resource)) out.push(duplicate(at(field, index), resource));
    seen.add(resource);
    out.push(...enumeration(field, resource, ["cpu", "memory"]));
    out.push(...enumeration(field, policy["restartPolicy"], ["NotRequired", "RestartContainer"]));
    if (scope.spec["restartPolicy"] === "Never" && policy["restartPolicy"] !== "NotRequired") {
      out.push(
        invalidValue(
          field,
          policy["restartPolicy"],
          "must be 'NotRequired' when pod `restartPolicy` is 'Never'",
        ),
      );
    }
  });
  return out;
}

function commonErrors(
  container: Readonly<JsonObject>,
  path: string,
  scope: ContainerScope,
): FieldError[] {
  const name = text(container["name"]);
  const out: FieldError[] =
    name === "" ? [required(`${path}.name`)] : invalidAll(`${path}.name`, name, dns1123Label(name));
  if (text(container["image"]) === "") out.push(required(`${path}.image`));
  out.push(
    ...enumeration(`${path}.terminationMessagePolicy`, container["terminationMessagePolicy"], [
      "File",
      "FallbackToLogsOnError",
    ]),
    ...portErrors(records(container["ports"]), `${path}.ports`),
    ...envErrors(container, path),
    ...envFromErrors(container, path),
    ...validateMounts(container, scope.volumes, path),
    ...enumeration(`${path}.imagePullPolicy`, container["imagePullPolicy"], [
      "Always",
      "IfNotPresent",
      "Never",
    ]),
    ...validateResources(record(container["resources"]), `${path}.resources`, scope.spec),
    ...resizeErrors(container, path, scope),
    ...validateContainerSecurity(container, path, scope.spec),
  );
  return out;
}

function hostPortConflicts(containers: readonly JsonObject[], field: string): FieldError[] {
  const seen = new Set<string>();
  const out: FieldError[] = [];
  containers.forEach((container, index) => {
    records(container["ports"]).forEach((port, portIndex) => {
      const hostPort = int(port["hostPort"]) ?? 0;
      if (hostPort === 0) return;
      const key = `${text(port["protocol"])}/${text(port["hostIP"])}/${hostPort}`;
      if (seen.has(key)) {
        out.push(duplicate(`${at(`${at(field, index)}.ports`, portIndex)}.hostPort`, key));
      }
      seen.add(key);
    });
  });
  return out;
}

/** Rules for `spec.containers`. */
export function validateContainers(scope: ContainerScope, field: string): FieldError[] {
  const containers = records(scope.spec["containers"]);
  if (containers.length === 0) return [required(field)];
  const names = new Set<string>();
  const out: FieldError[] = [];
  containers.forEach((container, index) => {
    const path = at(field, index);
    const name = text(container["name"]);
    out.push(...commonErrors(container, path, scope));
    if (names.has(name)) out.push(duplicate(`${path}.name`, name));
    names.add(name);
    out.push(
      ...lifecycleErrors(container, path, scope),
      ...probeErrors(container, "livenessProbe", path),
      ...probeErrors(container, "readinessProbe", path),
      ...probeErrors(container, "startupProbe", path),
      ...restartRules(container, path),
    );
  });
  return [...out, ...hostPortConflicts(containers, field)];
}

/** Rules for `spec.initContainers`; those with restartPolicy Always are sidecars and may have probes and hooks. */
export function validateInitContainers(scope: ContainerScope, field: string): FieldError[] {
  const names = new Set(records(scope.spec["containers"]).map((item) => text(item["name"])));
  const out: FieldError[] = [];
  records(scope.spec["initContainers"]).forEach((container, index) => {
    const path = at(field, index);
    const name = text(container["name"]);
    out.push(...commonErrors(container, path, scope), ...restartRules(container, path));
    if (names.has(name)) out.push(duplicate(`${path}.name`, name));
    else if (name !== "") names.add(name);
    out.push(...hostPortConflicts([container], field));
    if (container["restartPolicy"] === "Always") {
      out.push(
        ...lifecycleErrors(container, path, scope),
        ...probeErrors(container, "livenessProbe", path),
        ...probeErrors(container, "readinessProbe", path),
        ...probeErrors(container, "startupProbe", path),
      );
      return;
    }
    for (const key of ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"]) {
      if (container[key] !== undefined) out.push(forbiddenField(`${path}.${key}`, sidecarOnly));
    }
  });
  return out;
}

/** Members an ephemeral container may not have: it never gets resources, ports or probes. */
const notForEphemeral = [
  "ports",
  "resources",
  "livenessProbe",
  "readinessProbe",
  "startupProbe",
  "lifecycle",
];

/** Rules for `spec.ephemeralContainers`. */
export function validateEphemeralContainers(scope: ContainerScope, field: string): FieldError[] {
  const others = new Set(
    [...records(scope.spec["containers"]), ...records(scope.spec["initContainers"])].map((item) =>
      text(item["name"]),
    ),
  );
  const names = new Set(others);
  const out: FieldError[] = [];
  records(scope.spec["ephemeralContainers"]).forEach((container, index) => {
    const path = at(field, index);
    const name = text(container["name"]);
    const target = text(container["targetContainerName"]);
    out.push(...commonErrors(container, path, scope));
    if (names.has(name)) out.push(duplicate(`${path}.name`, name));
    names.add(name);
    if (target !== "" && !others.has(target)) {
      out.push(notFoundValue(`${path}.targetContainerName`, target));
    }
    for (const key of notForEphemeral) {
      if (semanticEqual(container[key], undefined)) continue;
      out.push(forbiddenField(`${path}.${key}`, "cannot be set for an Ephemeral Container"));
    }
    records(container["volumeMounts"]).forEach((mount, mountIndex) => {
      for (const key of ["subPath", "subPathExpr"]) {
        if (text(mount[key]) === "") continue;
        out.push(
          forbiddenField(
            `${at(`${path}.volumeMounts`, mountIndex)}.${key}`,
            "cannot be set for an Ephemeral Container",
          ),
        );
      }
    });
  });
  return out;
}

/** Image references of pods (not of templates) may not carry white space around them. */
export function imageWhitespace(spec: Readonly<JsonObject>, field: string): FieldError[] {
  return ["containers", "initContainers"].flatMap((key) =>
    records(spec[key]).flatMap((container, index) => {
      const image = text(container["image"]);
      return image === image.trim()
        ? []
        : [
            invalidValue(
              `${at(`${field}.${key}`, index)}.image`,
              image,
              "must not have leading or trailing whitespace",
            ),
          ];
    }),
  );
}
