import type { FieldError, JsonObject, KindDefinition } from "../types.ts";
import { isEmpty, nameOf, record, semanticEqual, text } from "./access.ts";
import { forbiddenField, invalidAll, invalidValue, required, tooLong } from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { configKeyMessages } from "./names.ts";
import { defineStrategy } from "./strategy.ts";
import { age, ageColumn, column, nameColumn } from "./table.ts";

/** Largest content of a ConfigMap or Secret, in bytes. */
const maxBytes = 1_048_576;

/** Bytes behind a base64 text. */
function decodedBytes(value: unknown): number {
  return Buffer.byteLength(text(value), "base64");
}

function immutableErrors(
  object: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
  members: readonly string[],
): FieldError[] {
  if (old?.["immutable"] !== true) return [];
  const message = "field is immutable when `immutable` is set";
  return [
    ...(object["immutable"] === true ? [] : [forbiddenField("immutable", message)]),
    ...members
      .filter((key) => !semanticEqual(object[key], old[key]))
      .map((key) => forbiddenField(key, message)),
  ];
}

function configMapErrors(object: Readonly<JsonObject>): FieldError[] {
  const out: FieldError[] = [];
  const data = record(object["data"]);
  const binary = record(object["binaryData"]);
  let size = 0;
  for (const [key, value] of Object.entries(data)) {
    const path = `data[${key}]`;
    out.push(...invalidAll(path, key, configKeyMessages(key)));
    if (key in binary) out.push(invalidValue(path, key, "duplicate of key present in binaryData"));
    size += Buffer.byteLength(text(value));
  }
  for (const [key, value] of Object.entries(binary)) {
    out.push(...invalidAll(`binaryData[${key}]`, key, configKeyMessages(key)));
    size += decodedBytes(value);
  }
  if (size > maxBytes) out.push(tooLong("", maxBytes));
  return out;
}

export const configMapKind: KindDefinition = defineKind({
  kind: "ConfigMap",
  plural: "configmaps",
  shortNames: ["cm"],
  schema: "io.k8s.api.core.v1.ConfigMap",
  strategy: defineStrategy({
    validate: (object, old) => [
      ...immutableErrors(object, old, ["data", "binaryData"]),
      ...configMapErrors(object),
    ],
  }),
  table: {
    columns: [nameColumn, column("Data", "Number of entries."), ageColumn],
    row: (object, now) => [
      nameOf(object),
      Object.keys(record(object["data"])).length + Object.keys(record(object["binaryData"])).length,
      age(object, now),
    ],
  },
});

const accountNameAnnotation = "kubernetes.io/service-account.name";

/** Keys that a Secret of a known type must hold. */
const requiredKeys: Readonly<Record<string, readonly string[]>> = {
  "kubernetes.io/tls": ["tls.crt", "tls.key"],
  "kubernetes.io/dockercfg": [".dockercfg"],
  "kubernetes.io/dockerconfigjson": [".dockerconfigjson"],
  "kubernetes.io/ssh-auth": ["ssh-privatekey"],
};

function typeErrors(object: Readonly<JsonObject>): FieldError[] {
  const type = text(object["type"]);
  const data = record(object["data"]);
  const out: FieldError[] = [];
  for (const key of requiredKeys[type] ?? []) {
    const value = data[key];
    const path = `data[${key}]`;
    const missing = value === undefined || (type === "kubernetes.io/ssh-auth" && value === "");
    if (missing) out.push(required(path));
    else if (key.startsWith(".docker")) out.push(...jsonErrors(value, path));
  }
  if (type === "kubernetes.io/basic-auth" && !("username" in data) && !("password" in data)) {
    out.push(required("data[username]"), required("data[password]"));
  }
  if (type === "kubernetes.io/service-account-token") {
    const annotations = record(record(object["metadata"])["annotations"]);
    if (text(annotations[accountNameAnnotation]) === "") {
      out.push(required(`metadata.annotations[${accountNameAnnotation}]`));
    }
  }
  return out;
}

function jsonErrors(value: unknown, path: string): FieldError[] {
  try {
    JSON.parse(Buffer.from(text(value), "base64").toString("utf8"));
    return [];
  } catch {
    // The parser's message may quote the secret.
    return [invalidValue(path, "<secret contents redacted>", "must be a JSON object")];
  }
}

function secretErrors(
  object: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const out: FieldError[] = [];
  if (old !== undefined && object["type"] !== old["type"]) {
    out.push(invalidValue("type", object["type"], "field is immutable"));
  }
  out.push(...immutableErrors(object, old, ["data"]));
  let size = 0;
  for (const [key, value] of Object.entries(record(object["data"]))) {
    out.push(...invalidAll(`data[${key}]`, key, configKeyMessages(key)));
    size += decodedBytes(value);
  }
  if (size > maxBytes) out.push(tooLong("data", maxBytes));
  return [...out, ...typeErrors(object)];
}

export const secretKind: KindDefinition = defineKind({
  kind: "Secret",
  plural: "secrets",
  schema: "io.k8s.api.core.v1.Secret",
  strategy: defineStrategy({
    applyDefaults(object) {
      if (text(object["type"]) === "") object["type"] = "Opaque";
      if (isEmpty(object["stringData"])) {
        delete object["stringData"];
        return;
      }
      // stringData is write-only: it is merged into data and never stored.
      const data = { ...record(object["data"]) };
      for (const [key, value] of Object.entries(record(object["stringData"]))) {
        data[key] = Buffer.from(text(value)).toString("base64");
      }
      object["data"] = data;
      delete object["stringData"];
    },
    validate: secretErrors,
  }),
  fieldSelectors: { type: (object) => text(object["type"]) },
  table: {
    columns: [
      nameColumn,
      column("Type", "What the data is for."),
      column("Data", "Number of entries."),
      ageColumn,
    ],
    row: (object, now) => [
      nameOf(object),
      text(object["type"]),
      Object.keys(record(object["data"])).length,
      age(object, now),
    ],
  },
});
