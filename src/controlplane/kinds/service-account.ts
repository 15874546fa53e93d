import { randomUUID } from "node:crypto";

import type { ServiceAccountTokens, TokenClaims } from "../auth/tokens.ts";
import { badRequest, invalid, notFound } from "../status-error.ts";
import type { JsonObject, KindDefinition, ObjectReader, SubresourceRequest } from "../types.ts";
import { int, metadataOf, nameOf, record, strings, text } from "./access.ts";
import { invalidValue } from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { defineStrategy } from "./strategy.ts";
import { age, ageColumn, nameColumn } from "./table.ts";

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
): Pick<TokenClaims, "bound" | "node"> {
  const kind = text(reference["kind"]);
  const name = text(reference["name"]);
  const plurals = { Pod: "pods", Secret: "secrets", Node: "nodes" } as const;
  const boundKind = kind === "Pod" || kind === "Secret" || kind === "Node" ? kind : undefined;
  if (boundKind === undefined) {
    throw badRequest(
      `cannot bind token for serviceaccount to object of type ${text(reference["apiVersion"])}, Kind=${kind}`,
    );
  }
  const plural = plurals[boundKind];
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
  const bound = { kind: boundKind, name, uid } as const;
  if (boundKind !== "Pod") return { bound, node: undefined };
  const nodeName = text(record(found["spec"])["nodeName"]);
  const node = nodeName === "" ? undefined : objects.get("nodes", "", nodeName);
  return {
    bound,
    node: node === undefined ? undefined : { name: nodeName, uid: text(metadataOf(node)["uid"]) },
  };
}

function issueToken(request: SubresourceRequest, tokens: ServiceAccountTokens): JsonObject {
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
  const requested = strings(spec["audiences"]);
  // Without audiences the token is for the API server itself.
  const audiences = requested.length === 0 ? [tokens.issuer] : requested;
  const issuedAt = Math.floor(context.now / 1000);
  const token = tokens.sign({
    namespace,
    serviceAccount: name,
    serviceAccountUID: text(metadataOf(account)["uid"]),
    ...(reference === undefined || reference === null
      ? { bound: undefined, node: undefined }
      : boundObject(record(reference), namespace, registry)),
    audiences,
    issuedAt,
    expiresAt: issuedAt + seconds,
    tokenID: randomUUID(),
  });
  const timestamp = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
  return {
    kind: "TokenRequest",
    apiVersion: "authentication.k8s.io/v1",
    metadata: { name, namespace, creationTimestamp: timestamp(context.now) },
    spec: { ...spec, audiences, expirationSeconds: seconds, boundObjectRef: reference ?? null },
    status: { token, expirationTimestamp: timestamp((issuedAt + seconds) * 1000) },
  };
}

/** Kind ServiceAccount with its token endpoint. */
export function createServiceAccountKind(tokens: ServiceAccountTokens): KindDefinition {
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
        handle: (request) => issueToken(request, tokens),
      },
    },
    table: {
      columns: [nameColumn, ageColumn],
      row: (account, now) => [nameOf(account), age(account, now)],
    },
  });
}
