import type { FieldError, JsonObject } from "../types.ts";
import { int, mapOf, record, records, text } from "./access.ts";
import { signerNameErrors } from "./certificate-signing-request-validation.ts";
import {
  at,
  forbiddenField,
  invalidAll,
  invalidValue,
  notSupported,
  required,
  tooLong,
} from "./field-error.ts";
import { dns1123Subdomain, qualifiedName, subdomainName } from "./names.ts";
import { fileMode, localPath } from "./path-validation.ts";
import { fieldReference, resourceReference } from "./reference-validation.ts";
import { validateLabelSelector } from "./scheduling-validation.ts";

const minTokenSeconds = 600;
const maxTokenSeconds = 2 ** 32;
const keyTypes = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
const minCertificateSeconds = 3600;
const daySeconds = 86_400;
const maxCertificateSeconds = 91 * daySeconds;
const maxAnnotationBytes = 256 * 1024;

function keyToPath(item: Readonly<JsonObject>, field: string): FieldError[] {
  return [
    ...(text(item["key"]) === "" ? [required(`${field}.key`)] : []),
    ...(text(item["path"]) === "" ? [required(`${field}.path`)] : []),
    ...localPath(text(item["path"]), `${field}.path`),
    ...fileMode(item, "mode", field),
  ];
}

/** Rules for the `items` of a ConfigMap or Secret volume. */
export function keysToPaths(source: Readonly<JsonObject>, field: string): FieldError[] {
  return records(source["items"]).flatMap((item, i) => keyToPath(item, at(`${field}.items`, i)));
}

/** Rules for one file of a downward API volume. Upstream leaves the index out of its path. */
export function downwardFile(file: Readonly<JsonObject>, field: string): FieldError[] {
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

/** Paths that the sources of one projected volume write to; each may be there once. */
class Paths {
  readonly #volume: string;
  readonly #seen = new Set<string>();

  /** @param volume Path of the volume in errors. */
  constructor(volume: string) {
    this.#volume = volume;
  }

  /** `shown` is what the error names. */
  take(path: string, shown: unknown = path): FieldError[] {
    const again = this.#seen.has(path);
    this.#seen.add(path);
    return again ? [invalidValue(this.#volume, shown, "conflicting duplicate paths")] : [];
  }
}

interface Projection {
  readonly source: Readonly<JsonObject>;
  readonly field: string;
  /** Path of the volume. */
  readonly volume: string;
  readonly paths: Paths;
}

function objectProjection({ source, field, paths }: Projection): FieldError[] {
  const name = text(source["name"]);
  return [
    ...(name === "" ? [required(`${field}.name`)] : []),
    ...records(source["items"]).flatMap((item, index) => [
      ...keyToPath(item, at(`${field}.items`, index)),
      ...(text(item["path"]) === "" ? [] : paths.take(text(item["path"]), name)),
    ]),
  ];
}

function downwardProjection({ source, field, paths }: Projection): FieldError[] {
  return records(source["items"]).flatMap((file) => [
    ...downwardFile(file, field),
    ...(text(file["path"]) === "" ? [] : paths.take(text(file["path"]))),
  ]);
}

function tokenProjection({ source, field, volume }: Projection): FieldError[] {
  const seconds = int(source["expirationSeconds"]) ?? 0;
  const path = text(source["path"]);
  const out: FieldError[] = [];
  if (seconds < minTokenSeconds) {
    const detail = "may not specify a duration less than 10 minutes";
    out.push(invalidValue(`${field}.expirationSeconds`, seconds, detail));
  }
  if (seconds > maxTokenSeconds) {
    const detail = "may not specify a duration larger than 2^32 seconds";
    out.push(invalidValue(`${field}.expirationSeconds`, seconds, detail));
  }
  // Upstream names the volume, not the source, in the errors about a token's path.
  const place = `${volume}.path`;
  return [...out, ...(path === "" ? [required(place)] : localPath(path, place))];
}

/** Names of ClusterTrustBundles: a subdomain, after the signer's name with colons for slashes when it has one. */
function bundleNameMessages(name: string): string[] {
  const split = name.lastIndexOf(":");
  const messages = split < 0 ? subdomainName(name, false) : dns1123Subdomain(name.slice(split + 1));
  return messages.map((message) => `not a valid clustertrustbundlename: ${message}`);
}

function bundleProjection({ source, field, paths }: Projection): FieldError[] {
  const { name, signerName, labelSelector } = source;
  const path = text(source["path"]);
  const out: FieldError[] = [];
  if (name !== undefined && signerName !== undefined) {
    out.push(invalidValue(field, source, "only one of name and signerName may be used"));
  } else if (name !== undefined) {
    if (name === "") out.push(required(`${field}.name`, "must be a valid object name"));
    out.push(...invalidAll(`${field}.name`, name, bundleNameMessages(text(name))));
    if (labelSelector !== undefined) {
      const detail = "labelSelector must be unset if name is specified";
      out.push(invalidValue(`${field}.labelSelector`, labelSelector, detail));
    }
  } else if (signerName === undefined) {
    out.push(required(field, "either name or signerName must be specified"));
  } else {
    const place = `${field}.signerName`;
    if (signerName === "") out.push(required(place, "must be a valid signer name"));
    out.push(...signerNameErrors(place, text(signerName)));
    out.push(...validateLabelSelector(labelSelector, `${field}.labelSelector`));
  }
  if (path === "") out.push(required(`${field}.path`));
  return [...out, ...localPath(path, `${field}.path`), ...paths.take(path)];
}

function userAnnotationErrors(value: unknown, field: string): FieldError[] {
  let size = 0;
  const out = Object.entries(mapOf(value)).flatMap(([key, member]) => {
    size += Buffer.byteLength(key) + Buffer.byteLength(member);
    const lower = key.toLowerCase();
    const messages = qualifiedName(lower);
    if (messages.length > 0) return invalidAll(field, lower, messages);
    return lower.includes("/")
      ? []
      : [invalidValue(field, lower, 'must be a domain-prefixed key (such as "acme.io/foo")')];
  });
  if (size > maxAnnotationBytes) out.push(tooLong(field, maxAnnotationBytes));
  return out;
}

function certificateProjection({ source, field, paths }: Projection): FieldError[] {
  const signer = text(source["signerName"]);
  const out = signerNameErrors(`${field}.signerName`, signer);
  out.push(...userAnnotationErrors(source["userAnnotations"], `${field}.userAnnotations`));
  const keyType = text(source["keyType"]);
  if (!keyTypes.includes(keyType)) {
    out.push(notSupported(`${field}.keyType`, keyType, keyTypes));
  }
  const seconds = int(source["maxExpirationSeconds"]);
  const isOurs = `.${signer.split("/")[0] ?? ""}`.endsWith(".kubernetes.io");
  const longest = isOurs ? daySeconds : maxCertificateSeconds;
  const place = `${field}.maxExpirationSeconds`;
  if (seconds !== undefined && seconds < minCertificateSeconds) {
    out.push(invalidValue(place, seconds, "if provided, maxExpirationSeconds must be >= 3600"));
  }
  if (seconds !== undefined && seconds > longest) {
    const detail = `if provided, maxExpirationSeconds must be <= ${longest}`;
    out.push(invalidValue(place, seconds, detail));
  }
  const keys = ["credentialBundlePath", "keyPath", "certificateChainPath"];
  const given = keys.filter((key) => text(source[key]) !== "");
  for (const key of given) {
    const path = text(source[key]);
    out.push(...localPath(path, `${field}.${key}`), ...paths.take(path));
  }
  if (given.length === 0) {
    const detail =
      "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
    out.push(required(field, detail));
  }
  return out;
}

/** In the order in which upstream looks at them. */
const projections: readonly (readonly [string, (projection: Projection) => FieldError[]])[] = [
  ["secret", objectProjection],
  ["configMap", objectProjection],
  ["downwardAPI", downwardProjection],
  ["serviceAccountToken", tokenProjection],
  ["clusterTrustBundle", bundleProjection],
  ["podCertificate", certificateProjection],
];

/** Rules for a projected volume. */
export function validateProjected(volume: Readonly<JsonObject>, field: string): FieldError[] {
  const out: FieldError[] = fileMode(volume, "defaultMode", field);
  const paths = new Paths(field);
  records(volume["sources"]).forEach((entry, index) => {
    const path = at(`${field}.sources`, index);
    const present = projections.filter(([key]) => entry[key] !== undefined);
    for (const [key, check] of present) {
      const source = record(entry[key]);
      out.push(...check({ source, field: `${path}.${key}`, volume: field, paths }));
    }
    if (present.length > 1) {
      out.push(forbiddenField(path, "may not specify more than 1 volume type per source"));
    }
  });
  return out;
}
