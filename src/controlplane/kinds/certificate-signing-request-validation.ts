import { X509Certificate } from "node:crypto";

import { errorMessage } from "../../lib/errors.ts";
import { parseCertificationRequest } from "../../lib/pkcs10.ts";
import type { FieldError, JsonObject } from "../types.ts";
import { int, record, records, semanticEqual, strings, text } from "./access.ts";
import {
  at,
  duplicate,
  forbiddenField,
  invalidAll,
  invalidValue,
  notSupported,
  required,
  tooLong,
} from "./field-error.ts";
import { dns1123Label, dns1123Subdomain } from "./names.ts";

/** What a certificate may be for (KeyUsage of certificates.k8s.io/v1). */
export const keyUsages: readonly string[] = [
  "any",
  "cert sign",
  "client auth",
  "code signing",
  "content commitment",
  "crl sign",
  "data encipherment",
  "decipher only",
  "digital signature",
  "email protection",
  "encipher only",
  "ipsec end system",
  "ipsec tunnel",
  "ipsec user",
  "key agreement",
  "key encipherment",
  "microsoft sgc",
  "netscape sgc",
  "ocsp signing",
  "s/mime",
  "server auth",
  "signing",
  "timestamping",
];

const legacySigner = "kubernetes.io/legacy-unknown";
const minExpirationSeconds = 600;
const maxDomainBytes = 253;
const maxSignerNameBytes = maxDomainBytes + 253 + 63 + 2;
const finalConditions = ["Approved", "Denied", "Failed"];
const decisions = ["Approved", "Denied"];

/** Which of the protected parts of the status an endpoint may write. */
export interface StatusRights {
  readonly approval: boolean;
  readonly certificate: boolean;
}

/** The PEM text in `spec.request`. */
export function requestPEM(csr: Readonly<JsonObject>): string {
  return Buffer.from(text(record(csr["spec"])["request"]), "base64").toString("utf8");
}

/** `status.conditions`, all of one type when it is given. */
export function conditionsOf(csr: Readonly<JsonObject>, type?: string): JsonObject[] {
  const all = records(record(csr["status"])["conditions"]);
  return type === undefined ? all : all.filter((condition) => condition["type"] === type);
}

function requestErrors(csr: Readonly<JsonObject>): FieldError[] {
  try {
    parseCertificationRequest(requestPEM(csr));
    return [];
  } catch (error) {
    const value = record(csr["spec"])["request"];
    return [invalidValue("spec.request", value, errorMessage(error))];
  }
}

function hasDuplicates(values: readonly unknown[]): boolean {
  return new Set(values).size < values.length;
}

function usageErrors(usages: readonly string[], before: readonly string[]): FieldError[] {
  const out: FieldError[] = usages.length === 0 ? [required("spec.usages")] : [];
  // What an older version let in does not make later writes impossible.
  const checkKnown = before.every((usage) => keyUsages.includes(usage));
  const checkUnique = !hasDuplicates(before);
  usages.forEach((usage, index) => {
    const path = at("spec.usages", index);
    if (checkKnown && !keyUsages.includes(usage)) out.push(notSupported(path, usage, keyUsages));
  });
  usages.forEach((usage, index) => {
    if (checkUnique && usages.indexOf(usage) < index)
      out.push(duplicate(at("spec.usages", index), usage));
  });
  return out;
}

function firstBadLabel(
  field: string,
  segment: string,
  check: (label: string) => readonly string[],
): FieldError[] {
  for (const label of segment.split(".")) {
    const messages = check(label).map(
      (message) => `validating label ${JSON.stringify(label)}: ${message}`,
    );
    if (messages.length > 0) return invalidAll(field, segment, messages);
  }
  return [];
}

/** A signer's name: `example.com/signer-name`. */
export function signerNameErrors(field: string, name: string): FieldError[] {
  if (name === "") return [required(field)];
  const [domain = "", path, extra] = name.split("/");
  if (path === undefined || extra !== undefined) {
    return [
      invalidValue(
        field,
        name,
        "must be a fully qualified domain and path of the form 'example.com/signer-name'",
      ),
    ];
  }
  return [
    ...(Buffer.byteLength(domain) > maxDomainBytes ? [tooLong(field, maxDomainBytes)] : []),
    ...firstBadLabel(field, domain, dns1123Label),
    ...(domain.includes(".")
      ? []
      : [
          invalidValue(
            field,
            domain,
            "should be a domain with at least two segments separated by dots",
          ),
        ]),
    ...firstBadLabel(field, path, dns1123Subdomain),
    ...(Buffer.byteLength(name) > maxSignerNameBytes ? [tooLong(field, maxSignerNameBytes)] : []),
  ];
}

function signerErrors(name: string, before: string | undefined): FieldError[] {
  const field = "spec.signerName";
  return name === legacySigner && before !== legacySigner
    ? [invalidValue(field, name, "the legacy signerName is not allowed via this API version")]
    : signerNameErrors(field, name);
}

function conditionStatusErrors(condition: Readonly<JsonObject>, path: string): FieldError[] {
  const status = text(condition["status"]);
  const allowed = finalConditions.includes(text(condition["type"]))
    ? ["True"]
    : ["False", "True", "Unknown"];
  if (status === "") return [required(path)];
  return allowed.includes(status) ? [] : [notSupported(path, status, allowed)];
}

function conditionErrors(
  csr: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const field = "status.conditions";
  const types = conditionsOf(csr).map((condition) => text(condition["type"]));
  const before = old === undefined ? [] : conditionsOf(old).map((each) => text(each["type"]));
  const checkBoth = !decisions.every((type) => before.includes(type));
  const checkUnique = !hasDuplicates(before);
  return conditionsOf(csr).flatMap((condition, index) => {
    const path = at(field, index);
    const type = types[index] ?? "";
    const earlier = types.slice(0, index);
    const other = decisions.find((decision) => decision !== type) ?? "";
    return [
      ...(type === "" && !before.includes("") ? [required(`${path}.type`)] : []),
      ...conditionStatusErrors(condition, `${path}.status`),
      ...(checkBoth && decisions.includes(type) && earlier.includes(other)
        ? [invalidValue(field, type, "Approved and Denied conditions are mutually exclusive")]
        : []),
      ...(checkUnique && earlier.includes(type) ? [duplicate(`${path}.type`, type)] : []),
    ];
  });
}

/** Why a text is not one or more certificates in PEM; undefined when it is. */
function certificateProblem(pem: string): string | undefined {
  const blocks = [...pem.matchAll(/-----BEGIN ([^-\n]+)-----\r?\n([\s\S]*?)-----END \1-----/g)];
  if (blocks.length === 0) return "must contain at least one CERTIFICATE PEM block";
  for (const [block, label = "", body = ""] of blocks) {
    if (label !== "CERTIFICATE")
      return `only CERTIFICATE PEM blocks are allowed, found ${JSON.stringify(label)}`;
    if (body.includes(":")) return "no PEM block headers are permitted";
    try {
      void new X509Certificate(block);
    } catch (error) {
      return errorMessage(error);
    }
  }
  return undefined;
}

function certificateErrors(
  csr: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const certificate = text(record(csr["status"])["certificate"]);
  const same = old !== undefined && certificate === text(record(old["status"])["certificate"]);
  if (certificate === "" || same) return [];
  const problem = certificateProblem(Buffer.from(certificate, "base64").toString("utf8"));
  return problem === undefined
    ? []
    : [invalidValue("status.certificate", "<certificate data>", problem)];
}

/** Rules that hold at create and at update. */
export function certificateSigningRequestErrors(
  csr: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const spec = record(csr["spec"]);
  const before = record(old?.["spec"]);
  const expiration = int(spec["expirationSeconds"]);
  return [
    ...requestErrors(csr),
    ...usageErrors(strings(spec["usages"]), strings(before["usages"])),
    ...signerErrors(
      text(spec["signerName"]),
      old === undefined ? undefined : text(before["signerName"]),
    ),
    ...(expiration !== undefined && expiration < minExpirationSeconds
      ? [
          invalidValue(
            "spec.expirationSeconds",
            expiration,
            "may not specify a duration less than 600 seconds (10 minutes)",
          ),
        ]
      : []),
    ...conditionErrors(csr, old),
    ...certificateErrors(csr, old),
  ];
}

/** What an update may not do: conditions that decide stay, and only their own endpoint writes them. */
export function certificateSigningRequestChangeErrors(
  csr: Readonly<JsonObject>,
  old: Readonly<JsonObject>,
  rights: StatusRights,
): FieldError[] {
  const out: FieldError[] = [];
  const conditions = "status.conditions";
  for (const type of finalConditions) {
    const now = conditionsOf(csr, type);
    const before = conditionsOf(old, type);
    const quoted = JSON.stringify(type);
    if (now.length < before.length) {
      out.push(forbiddenField(conditions, `updates may not remove a condition of type ${quoted}`));
    } else if (!rights.approval && decisions.includes(type)) {
      if (now.length > before.length)
        out.push(forbiddenField(conditions, `updates may not add a condition of type ${quoted}`));
      else if (!semanticEqual(now, before))
        out.push(
          forbiddenField(conditions, `updates may not modify a condition of type ${quoted}`),
        );
    }
  }
  const certificate = text(record(csr["status"])["certificate"]);
  const issued = text(record(old["status"])["certificate"]);
  if (certificate === issued) return out;
  if (!rights.certificate)
    out.push(forbiddenField("status.certificate", "updates may not set certificate content"));
  else if (issued !== "")
    out.push(
      forbiddenField("status.certificate", "updates may not modify existing certificate content"),
    );
  return out;
}
