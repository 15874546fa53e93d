import type { JsonObject, KindDefinition, RequestContext, StoredSubresource } from "../types.ts";
import { ensureRecord, int, nameOf, record, text } from "./access.ts";
import {
  certificateSigningRequestChangeErrors,
  certificateSigningRequestErrors,
  conditionsOf,
  type StatusRights,
} from "./certificate-signing-request-validation.ts";
import { defineKind } from "./kind-builder.ts";
import { pathSegmentMessages } from "./names.ts";
import { defineStatusStrategy, defineStrategy, restore, subresourceVerbs } from "./strategy.ts";
import { age, ageColumn, column, humanDuration, nameColumn } from "./table.ts";

/** Who asks is what the server knows, never what the client writes. */
function stampRequestor(csr: JsonObject, { user }: RequestContext): void {
  const spec = ensureRecord(csr, "spec");
  for (const key of ["username", "uid", "groups", "extra"]) delete spec[key];
  if (user.name !== "") spec["username"] = user.name;
  if (user.uid !== "") spec["uid"] = user.uid;
  if (user.groups.length > 0) spec["groups"] = [...user.groups];
  if (Object.keys(user.extra).length > 0) spec["extra"] = structuredClone(user.extra);
  csr["status"] = {};
}

/** RFC 3339, whole seconds. */
function timestamp(now: number): string {
  return new Date(now).toISOString().replace(/\.\d+Z$/, "Z");
}

/** Fills the times of conditions that came without them; a condition that was there keeps its transition. */
function stampConditions(csr: JsonObject, old: Readonly<JsonObject>, now: number): void {
  for (const condition of conditionsOf(csr)) {
    if (text(condition["lastUpdateTime"]) === "") condition["lastUpdateTime"] = timestamp(now);
    if (text(condition["lastTransitionTime"]) !== "") continue;
    const before = conditionsOf(old, text(condition["type"])).find(
      (each) => each["status"] === condition["status"] && text(each["lastTransitionTime"]) !== "",
    );
    condition["lastTransitionTime"] = before?.["lastTransitionTime"] ?? timestamp(now);
  }
}

/** The stored Approved and Denied conditions in the place of those that were sent, when there are as many. */
function keepDecisions(csr: JsonObject, old: Readonly<JsonObject>): void {
  for (const type of ["Approved", "Denied"]) {
    const sent = conditionsOf(csr, type);
    const stored = conditionsOf(old, type);
    if (sent.length !== stored.length) continue;
    sent.forEach((condition, index) => {
      for (const key of Object.keys(condition)) delete condition[key];
      Object.assign(condition, structuredClone(stored[index]));
    });
  }
}

const strategy = defineStrategy({
  prepareForCreate: stampRequestor,
  // A request does not change once it is made, except through its subresources.
  prepareForUpdate(csr, old) {
    restore(csr, old, "spec");
    restore(csr, old, "status");
  },
  validate: (csr, old) => [
    ...certificateSigningRequestErrors(csr, old),
    ...(old === undefined
      ? []
      : certificateSigningRequestChangeErrors(csr, old, { approval: false, certificate: false })),
  ],
  validateName: pathSegmentMessages,
});

function statusEndpoint(
  rights: StatusRights,
  prepare: (csr: JsonObject, old: Readonly<JsonObject>) => void,
): StoredSubresource {
  return {
    kind: "stored",
    verbs: subresourceVerbs,
    strategy: defineStatusStrategy(strategy, {
      prepareForUpdate(csr, old, context) {
        ensureRecord(csr, "status");
        prepare(csr, old);
        stampConditions(csr, old, context.now);
      },
      validate: (csr, old) => [
        ...certificateSigningRequestErrors(csr, old),
        ...certificateSigningRequestChangeErrors(csr, old ?? {}, rights),
      ],
    }),
  };
}

function statusText(csr: Readonly<JsonObject>): string {
  const has = (type: string): boolean => conditionsOf(csr, type).length > 0;
  const decision = has("Denied") ? "Denied" : has("Approved") ? "Approved" : "Pending";
  const failed = has("Failed") ? ",Failed" : "";
  return `${decision}${failed}${text(record(csr["status"])["certificate"]) === "" ? "" : ",Issued"}`;
}

export const certificateSigningRequestKind: KindDefinition = defineKind({
  group: "certificates.k8s.io",
  kind: "CertificateSigningRequest",
  plural: "certificatesigningrequests",
  shortNames: ["csr"],
  namespaced: false,
  schema: "io.k8s.api.certificates.v1.CertificateSigningRequest",
  strategy,
  subresources: {
    // Who approves decides, and writes no certificate; who signs writes it, and decides nothing.
    approval: statusEndpoint({ approval: true, certificate: false }, (csr, old) =>
      restore(ensureRecord(csr, "status"), record(old["status"]), "certificate"),
    ),
    status: statusEndpoint({ approval: false, certificate: true }, keepDecisions),
  },
  fieldSelectors: { "spec.signerName": (csr) => text(record(csr["spec"])["signerName"]) },
  table: {
    columns: [
      nameColumn,
      ageColumn,
      column("SignerName", "Who is asked to sign."),
      column("Requestor", "Who asks."),
      column("RequestedDuration", "How long the certificate should live."),
      column("Condition", "Whether it is approved, denied, failed or issued."),
    ],
    row(csr, now) {
      const spec = record(csr["spec"]);
      const seconds = int(spec["expirationSeconds"]);
      return [
        nameOf(csr),
        age(csr, now),
        text(spec["signerName"]) || "<none>",
        text(spec["username"]),
        seconds === undefined ? "<none>" : humanDuration(seconds * 1000),
        statusText(csr),
      ];
    },
  },
});
