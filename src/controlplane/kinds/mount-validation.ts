import type { FieldError, JsonObject } from "../types.ts";
import { record, records, text } from "./access.ts";
import {
  at,
  forbiddenField,
  invalidValue,
  notFoundValue,
  notSupported,
  required,
} from "./field-error.ts";
import { descendingPath } from "./path-validation.ts";

const propagations = ["Bidirectional", "HostToContainer", "None"];
const recursiveReadOnly = ["Disabled", "Enabled", "IfPossible"];

function propagationErrors(
  mount: Readonly<JsonObject>,
  container: Readonly<JsonObject>,
  field: string,
): FieldError[] {
  const out: FieldError[] = [];
  const propagation = mount["mountPropagation"];
  if (propagation !== undefined) {
    if (!propagations.includes(text(propagation))) {
      out.push(notSupported(`${field}.mountPropagation`, propagation, propagations));
    }
    const privileged = record(container["securityContext"])["privileged"] === true;
    if (propagation === "Bidirectional" && !privileged) {
      out.push(
        forbiddenField(
          `${field}.mountPropagation`,
          "Bidirectional mount propagation is available only to privileged containers",
        ),
      );
    }
  }
  const recursive = mount["recursiveReadOnly"];
  if (recursive === undefined || recursive === "Disabled") return out;
  const path = `${field}.recursiveReadOnly`;
  if (!recursiveReadOnly.includes(text(recursive))) {
    return [...out, notSupported(path, recursive, recursiveReadOnly)];
  }
  if (mount["readOnly"] !== true) {
    out.push(forbiddenField(path, "may only be specified when readOnly is true"));
  }
  if (propagation !== undefined && propagation !== "None") {
    out.push(
      forbiddenField(path, "may only be specified when mountPropagation is None or not specified"),
    );
  }
  return out;
}

/** Checks a container's `volumeMounts` and `volumeDevices` against the pod's volumes. */
export function validateMounts(
  container: Readonly<JsonObject>,
  volumes: ReadonlyMap<string, Readonly<JsonObject>>,
  field: string,
): FieldError[] {
  const out: FieldError[] = [];
  const devices = records(container["volumeDevices"]);
  const paths = new Set<string>();
  const mountsField = `${field}.volumeMounts`;
  records(container["volumeMounts"]).forEach((mount, index) => {
    const path = at(mountsField, index);
    const name = text(mount["name"]);
    const mountPath = text(mount["mountPath"]);
    if (name === "") out.push(required(`${path}.name`));
    if (!volumes.has(name)) out.push(notFoundValue(`${path}.name`, name));
    if (mountPath === "") out.push(required(`${path}.mountPath`));
    if (paths.has(mountPath)) {
      out.push(invalidValue(`${path}.mountPath`, mountPath, "must be unique"));
    }
    paths.add(mountPath);
    if (devices.some((device) => device["name"] === name)) {
      out.push(invalidValue(`${path}.name`, name, "must not already exist in volumeDevices"));
    }
    const subPath = text(mount["subPath"]);
    const expression = text(mount["subPathExpr"]);
    // Upstream leaves the index out of these three paths.
    if (subPath !== "") out.push(...descendingPath(subPath, `${mountsField}.subPath`));
    if (expression !== "") {
      if (subPath !== "") {
        out.push(
          invalidValue(
            `${path}.subPathExpr`,
            expression,
            "subPathExpr and subPath are mutually exclusive",
          ),
        );
      }
      out.push(...descendingPath(expression, `${mountsField}.subPathExpr`));
    }
    out.push(...propagationErrors(mount, container, mountsField));
  });
  return [...out, ...deviceErrors(container, volumes, `${field}.volumeDevices`)];
}

function deviceErrors(
  container: Readonly<JsonObject>,
  volumes: ReadonlyMap<string, Readonly<JsonObject>>,
  field: string,
): FieldError[] {
  const out: FieldError[] = [];
  const names = new Set<string>();
  const paths = new Set<string>();
  records(container["volumeDevices"]).forEach((device, index) => {
    const path = at(field, index);
    const name = text(device["name"]);
    const devicePath = text(device["devicePath"]);
    const volume = volumes.get(name);
    if (name === "") out.push(required(`${path}.name`));
    if (names.has(name)) out.push(invalidValue(`${path}.name`, name, "must be unique"));
    names.add(name);
    if (volume === undefined) out.push(notFoundValue(`${path}.name`, name));
    else if (volume["persistentVolumeClaim"] === undefined && volume["ephemeral"] === undefined) {
      out.push(
        invalidValue(
          `${path}.name`,
          name,
          "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
        ),
      );
    }
    if (devicePath === "") out.push(required(`${path}.devicePath`));
    if (paths.has(devicePath)) {
      out.push(invalidValue(`${path}.devicePath`, devicePath, "must be unique"));
    }
    paths.add(devicePath);
    if (devicePath.split("/").includes("..")) {
      out.push(invalidValue(`${path}.devicePath`, devicePath, "can not contain backsteps ('..')"));
    }
  });
  return out;
}
