import type { FieldError, JsonObject } from "../types.ts";
import { int, record, records, text } from "./access.ts";
import {
  at,
  duplicate,
  forbiddenField,
  invalidAll,
  invalidValue,
  notSupported,
  required,
} from "./field-error.ts";
import { dns1123Label } from "./names.ts";
import { noBacksteps, localPath, fileMode } from "./path-validation.ts";
import { quantityOf } from "./quantity.ts";
import { fieldReference, resourceReference } from "./reference-validation.ts";

function keyToPath(item: Readonly<JsonObject>, field: string): FieldError[] {
  return [
    ...(text(item["key"]) === "" ? [required(`${field}.key`)] : []),
    ...(text(item["path"]) === "" ? [required(`${field}.path`)] : []),
    ...localPath(text(item["path"]), `${field}.path`),
    ...fileMode(item, "mode", field),
  ];
}

function keysToPaths(source: Readonly<JsonObject>, field: string): FieldError[] {
  return records(source["items"]).flatMap((item, i) => keyToPath(item, at(`${field}.items`, i)));
}

function downwardFile(file: Readonly<JsonObject>, field: string): FieldError[] {
  const path = text(file["path"]);
  const out: FieldError[] = path === "" ? [required(`${field}.path`)] : [];
  out.push(...localPath(path, `${field}.path`));
  if (file["fieldRef"] !== undefined) {
    out.push(...fieldReference(record(file["fieldRef"]), `${field}.fieldRef`, "volume"));
    if (file["resourceFieldRef"] !== undefined) {
      out.push(
        invalidValue(
          field,
          "resource",
          "fieldRef and resourceFieldRef can not be specified simultaneously",
        ),
      );
    }
  } else if (file["resourceFieldRef"] !== undefined) {
    out.push(
      ...resourceReference(record(file["resourceFieldRef"]), `${field}.resourceFieldRef`, "volume"),
    );
  } else out.push(required(field, "one of fieldRef and resourceFieldRef is required"));
  return [...out, ...fileMode(file, "mode", field)];
}

function tokenProjection(token: Readonly<JsonObject>, field: string, parent: string): FieldError[] {
  const out: FieldError[] = [];
  const expiration = int(token["expirationSeconds"]) ?? 0;
  const path = text(token["path"]);
  if (expiration < 600) {
    out.push(
      invalidValue(
        `${field}.expirationSeconds`,
        expiration,
        "may not specify a duration less than 10 minutes",
      ),
    );
  }
  if (expiration > 2 ** 32) {
    out.push(
      invalidValue(
        `${field}.expirationSeconds`,
        expiration,
        "may not specify a duration larger than 2^32 seconds",
      ),
    );
  }
  // Upstream names the volume, not the source, in the errors about a token's path.
  if (path === "") out.push(required(`${parent}.path`));
  else out.push(...localPath(path, `${parent}.path`));
  return out;
}

const projections = [
  "secret",
  "configMap",
  "downwardAPI",
  "serviceAccountToken",
  "clusterTrustBundle",
  "podCertificate",
];

function projected(source: Readonly<JsonObject>, field: string): FieldError[] {
  const out: FieldError[] = fileMode(source, "defaultMode", field);
  const seen = new Set<string>();
  records(source["sources"]).forEach((entry, index) => {
    const path = at(`${field}.sources`, index);
    const present = projections.filter((name) => entry[name] !== undefined);
    for (const name of present) {
      const member = record(entry[name]);
      const memberPath = `${path}.${name}`;
      if (name === "secret" || name === "configMap") {
        if (text(member["name"]) === "") out.push(required(`${memberPath}.name`));
        out.push(...keysToPaths(member, memberPath));
      } else if (name === "downwardAPI") {
        for (const file of records(member["items"])) out.push(...downwardFile(file, memberPath));
      } else if (name === "serviceAccountToken") {
        out.push(...tokenProjection(member, memberPath, field));
      } else if (name === "clusterTrustBundle" && text(member["path"]) === "") {
        out.push(required(`${memberPath}.path`));
      }
      for (const item of records(member["items"])) {
        const target = text(item["path"]);
        if (target !== "" && seen.has(target)) {
          const shown = name === "downwardAPI" ? target : member["name"];
          out.push(invalidValue(field, shown, "conflicting duplicate paths"));
        }
        seen.add(target);
      }
    }
    if (present.length > 1) {
      out.push(forbiddenField(path, "may not specify more than 1 volume type per source"));
    } else if (present.length === 0) {
      out.push(
        required(
          path,
          "must specify one of: `secret`, `configMap`, `downwardAPI`, or `serviceAccountToken`",
        ),
      );
    }
  });
  return out;
}

const hostPathTypes = [
  "",
  "BlockDevice",
  "CharDevice",
  "Directory",
  "DirectoryOrCreate",
  "File",
  "FileOrCreate",
  "Socket",
];

/** Members that a volume source cannot do without. */
const requiredMembers: Readonly<Record<string, readonly string[]>> = {
  secret: ["secretName"],
  configMap: ["name"],
  hostPath: ["path"],
  persistentVolumeClaim: ["claimName"],
  nfs: ["server", "path"],
  gitRepo: ["repository"],
  csi: ["driver"],
  glusterfs: ["endpoints", "path"],
  flexVolume: ["driver"],
};

type SourceRule = (source: Readonly<JsonObject>, field: string) => FieldError[];

const sourceRules: Readonly<Record<string, SourceRule>> = {
  emptyDir(source, field) {
    const limit = quantityOf(source["sizeLimit"]);
    return limit !== undefined && limit.nanos < 0n
      ? [forbiddenField(`${field}.sizeLimit`, "SizeLimit field must be a valid resource quantity")]
      : [];
  },
  secret: (source, field) => [
    ...fileMode(source, "defaultMode", field),
    ...keysToPaths(source, field),
  ],
  configMap: (source, field) => [
    ...fileMode(source, "defaultMode", field),
    ...keysToPaths(source, field),
  ],
  hostPath(source, field) {
    const type = text(source["type"]);
    return [
      ...noBacksteps(text(source["path"]), `${field}.path`),
      ...(hostPathTypes.includes(type) ? [] : [notSupported(`${field}.type`, type, hostPathTypes)]),
    ];
  },
  nfs: (source, field) =>
    text(source["path"]).startsWith("/") || text(source["path"]) === ""
      ? []
      : [invalidValue(`${field}.path`, source["path"], "must be an absolute path")],
  downwardAPI: (source, field) => [
    ...fileMode(source, "defaultMode", field),
    ...records(source["items"]).flatMap((file) => downwardFile(file, field)),
  ],
  projected,
};

function volumeSource(volume: Readonly<JsonObject>, field: string): FieldError[] {
  const out: FieldError[] = [];
  const sources = Object.keys(volume).filter((key) => key !== "name");
  if (sources.length === 0) out.push(required(field, "must specify a volume type"));
  sources.forEach((name, index) => {
    const path = `${field}.${name}`;
    if (index > 0) {
      out.push(forbiddenField(path, "may not specify more than 1 volume type"));
      return;
    }
    const source = record(volume[name]);
    for (const key of requiredMembers[name] ?? []) {
      if (text(source[key]) === "") out.push(required(`${path}.${key}`));
    }
    out.push(...(sourceRules[name]?.(source, path) ?? []));
  });
  return out;
}

/** Checks `spec.volumes`. Only volumes without an error may be mounted; they are in `volumes`. */
export function validateVolumes(
  value: unknown,
  field: string,
): {
  readonly errors: FieldError[];
  readonly volumes: ReadonlyMap<string, Readonly<JsonObject>>;
} {
  const errors: FieldError[] = [];
  const volumes = new Map<string, Readonly<JsonObject>>();
  records(value).forEach((volume, index) => {
    const path = at(field, index);
    const name = text(volume["name"]);
    const own = volumeSource(volume, path);
    if (name === "") own.push(required(`${path}.name`));
    else own.push(...invalidAll(`${path}.name`, name, dns1123Label(name)));
    if (volumes.has(name)) own.push(duplicate(`${path}.name`, name));
    if (own.length === 0) volumes.set(name, volume);
    errors.push(...own);
  });
  return { errors, volumes };
}
