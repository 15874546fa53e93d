import type { FieldError, JsonObject } from "../types.ts";
import { text } from "./access.ts";
import { invalidValue, required } from "./field-error.ts";
import {
  byteNumber,
  namedSecret,
  requireTexts,
  type SourceCheck,
} from "./volume-source-members.ts";

const maxInitiatorBytes = 64;

const iscsiNames: Readonly<Record<string, RegExp>> = {
  iqn: /iqn\.\d{4}-\d{2}\.([0-9A-Za-z.-]+)(:[^,;*&$|\s]+)$/,
  eui: /^eui.[0-9A-Za-z]{16}$/,
  naa: /^naa.[0-9A-Za-z]{32}$/,
};

function iscsiName(value: string, field: string, otherwise: string): FieldError[] {
  const pattern = iscsiNames[value.slice(0, 3)];
  if (pattern === undefined) return [invalidValue(field, value, otherwise)];
  return pattern.test(value) ? [] : [invalidValue(field, value, "must be valid format")];
}

function iscsiCommon(
  source: Readonly<JsonObject>,
  field: string,
  badPrefix: string,
): {
  readonly target: FieldError[];
  readonly rest: FieldError[];
  readonly initiator: FieldError[];
} {
  const iqn = text(source["iqn"]);
  const needsSecret = source["chapAuthDiscovery"] === true || source["chapAuthSession"] === true;
  const initiator = source["initiatorName"];
  return {
    target: requireTexts(source, field, "targetPortal"),
    rest: [
      ...(iqn === "" ? [required(`${field}.iqn`)] : iscsiName(iqn, `${field}.iqn`, badPrefix)),
      ...byteNumber(source["lun"], `${field}.lun`, [0, 255]),
      ...(needsSecret && source["secretRef"] === undefined ? [required(`${field}.secretRef`)] : []),
    ],
    initiator:
      initiator === undefined
        ? []
        : iscsiName(text(initiator), `${field}.initiatorname`, badPrefix),
  };
}

const initiatorTooLong =
  "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

function initiatorIsTooLong(source: Readonly<JsonObject>, name: string): boolean {
  const both = `${name}:${text(source["targetPortal"])}`;
  return source["initiatorName"] !== undefined && Buffer.byteLength(both) > maxInitiatorBytes;
}

/** Rules of `iscsi` in a pod. `name` is the volume's. */
export function iscsiCheck(name: string): SourceCheck {
  return (source, field) => {
    const { target, rest, initiator } = iscsiCommon(
      source,
      field,
      "must be valid format starting with iqn, eui, or naa",
    );
    const parent = field.slice(0, field.lastIndexOf("."));
    return [
      ...target,
      ...rest,
      ...initiator,
      ...(initiatorIsTooLong(source, name)
        ? [invalidValue(`${parent}.name`, name, initiatorTooLong)]
        : []),
    ];
  };
}

/** Rules of `iscsi` in a PersistentVolume. */
export function iscsiPersistentCheck(name: string): SourceCheck {
  return (source, field) => {
    const { target, rest, initiator } = iscsiCommon(source, field, "must be valid format");
    const portal = source["targetPortal"];
    return [
      ...target,
      ...(initiatorIsTooLong(source, name)
        ? [invalidValue(`${field}.targetportal`, portal, initiatorTooLong)]
        : []),
      ...rest,
      ...namedSecret(source, field, false),
      ...initiator,
    ];
  };
}
