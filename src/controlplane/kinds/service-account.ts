import { badRequest, invalid, notFound } from "../status-error.ts";
import type { JsonObject, KindDefinition, ObjectReader, SubresourceRequest } from "../types.ts";
import { int, metadataOf, nameOf, record, strings, text } from "./access.ts";
import { invalidValue } from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { defineStrategy } from "./strategy.ts";
import { age, ageColumn, nameColumn } from "./table.ts";

/** What a token is made for. */
export interface TokenClaims {
  readonly namespace: string;
  readonly serviceAccount: { readonly name: string; readonly uid: string };
  readonly pod?: { readonly name: string; readonly uid: string };
  readonly secret?: { readonly name: string; readonly uid: string };
  readonly node?: { readonly name: string; readonly uid: string | undefined };
  /** Empty means the API server's own audience. */
  readonly audiences: readonly string[];
  readonly expirationSeconds: number;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/** Signs a service account token. */
export type SignToken = (claims: TokenClaims) => string;

const target = { plural: "serviceaccounts", kind: "ServiceAccount", group: "" };
const tokenRequest = {
  plural: "tokenrequests",
  kind: "TokenRequest",
  group: "authentication.k8s.io",
};
const shortestSeconds = 600;
const longestSeconds = 2 ** 32;

function boundObject(
  reference: Readonly<JsonObject>,
  namespace: string,
  objects: ObjectReader,
): Pick<TokenClaims, "pod" | "secret" | "node"> {
  const kind = text(reference["kind"]);
  const name = text(reference["name"]);
  const plural = { Pod: "pods", Secret: "secrets", Node: "nodes" }[kind];
  if (plural === undefined) {
    throw badRequest(
      `cannot bind token for serviceaccount to object of type ${text(reference["apiVersion"])}, Kind=${kind}`,
    );
  }
  const found = objects.get(plural, plural === "nodes" ? "" : namespace, name);
  if (found === undefined) throw notFound({ plural, kind, group: "" }, name);
  const uid = text(metadataOf(found)["uid"]);
  const wanted = text(reference["uid"]);
  if (wanted !== "" && wanted !== uid) {
    throw invalid(tokenRequest, name, [
      invalidValue(
        "spec.boundObjectRef.uid",
        wanted,
        `the UID in the bound object reference (${wanted}) does not match the UID in record. The object might have been deleted and then recreated`,
      ),
    ]);
  }
  if (kind === "Secret") return { secret: { name, uid } };
  if (kind === "Node") return { node: { name, uid } };
  const nodeName = text(record(found["spec"])["nodeName"]);
  if (nodeName === "") return { pod: { name, uid } };
  const node = objects.get("nodes", "", nodeName);
  const nodeUID = node === undefined ? undefined : text(metadataOf(node)["uid"]);
  return { pod: { name, uid }, node: { name: nodeName, uid: nodeUID } };
}

function issueToken(request: SubresourceRequest, sign: SignToken): JsonObject {
  const body = request.body ?? {};
  const spec = record(body["spec"]);
  const { registry, namespace, name, context } = request;
  const account = registry.get(target.plural, namespace, name);
  if (account === undefined) throw notFound(target, name);
  const seconds = int(spec["expirationSeconds"]) ?? 3600;
  if (seconds < shortestSeconds || seconds > longestSeconds) {
    throw invalid(tokenRequest, name, [
      invalidValue(
        "spec.expirationSeconds",
        seconds,
        seconds < shortestSeconds
          ? "may not specify a duration less than 10 minutes"
          : "may not specify a duration larger than 2^32 seconds",
      ),
    ]);
  }
  const reference = spec["boundObjectRef"];
  const audiences = strings(spec["audiences"]);
  const token = sign({
    namespace,
    serviceAccount: { name, uid: text(metadataOf(account)["uid"]) },
    ...(reference === undefined ? {} : boundObject(record(reference), namespace, registry)),
    audiences,
    expirationSeconds: seconds,
    now: context.now,
  });
  const timestamp = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
  return {
    kind: "TokenRequest",
    apiVersion: "authentication.k8s.io/v1",
    metadata: { name, namespace, creationTimestamp: timestamp(context.now) },
    spec: { ...spec, audiences, expirationSeconds: seconds, boundObjectRef: reference ?? null },
    status: { token, expirationTimestamp: timestamp(context.now + seconds * 1000) },
  };
}

/** Kind ServiceAccount with its token endpoint. */
export function createServiceAccountKind(sign: SignToken): KindDefinition {
  return defineKind({
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    shortNames: ["sa"],
    schema: "io.k8s.api.core.v1.ServiceAccount",
    strategy: { ...defineStrategy({}), returnsDeletedObject: true },
    subresources: {
      token: {
        kind: "custom",
        verbs: ["create"],
        gvk: { group: "authentication.k8s.io", version: "v1", kind: "TokenRequest" },
        handle: (request) => issueToken(request, sign),
      },
    },
    table: {
      columns: [nameColumn, ageColumn],
      row: (account, now) => [nameOf(account), age(account, now)],
    },
  });
}
