import { generateKeyPairSync } from "node:crypto";

import { createAdmission } from "../../../src/controlplane/admission/admission.ts";
import {
  createAuthenticator,
  userOfToken,
  type AuthenticatorOptions,
} from "../../../src/controlplane/auth/authenticator.ts";
import { createAuthorizer } from "../../../src/controlplane/auth/authorizer.ts";
import { ServiceAccountTokens } from "../../../src/controlplane/auth/tokens.ts";
import { text } from "../../../src/controlplane/kinds/access.ts";
import { createKinds } from "../../../src/controlplane/kinds/kinds.ts";
import { invalid } from "../../../src/controlplane/status-error.ts";
import type {
  AdmissionAttributes,
  JsonObject,
  KindDefinition,
  ObjectReader,
  RequestContext,
  UserInfo,
} from "../../../src/controlplane/types.ts";
import { tokenSigner } from "../../../src/controlplane/token-signer.ts";
import { isRecord } from "../../../src/lib/guard.ts";

export const now = Date.UTC(2026, 10, 21, 12);
export const issuer = "https://kubernetes.default.svc.cluster.local";
export const admin: UserInfo = { name: "admin", uid: "", groups: ["system:masters"], extra: {} };

/** Objects by `resource/namespace/name`; what the tests see as the store. */
export class FakeObjects implements ObjectReader {
  readonly #objects = new Map<string, JsonObject>();

  put(resource: string, object: JsonObject): void {
    const metadata = isRecord(object["metadata"]) ? object["metadata"] : {};
    const namespace = text(metadata["namespace"]);
    this.#objects.set(`${resource}|${namespace}|${text(metadata["name"])}`, object);
  }

  remove(resource: string, namespace: string, name: string): void {
    this.#objects.delete(`${resource}|${namespace}|${name}`);
  }

  get(resource: string, namespace: string, name: string): JsonObject | undefined {
    return this.#objects.get(`${resource}|${namespace}|${name}`);
  }

  list(resource: string, namespace?: string): JsonObject[] {
    return [...this.#objects]
      .filter(([key]) => {
        const [own, at] = key.split("|");
        return own === resource && (namespace === undefined || at === namespace);
      })
      .map(([, object]) => object);
  }
}

export function context(user: UserInfo = admin, dryRun = false): RequestContext {
  return { user, dryRun, now, warn: () => undefined };
}

export interface Cluster {
  readonly objects: FakeObjects;
  readonly kinds: readonly KindDefinition[];
  readonly tokens: ServiceAccountTokens;
  kind(resource: string): KindDefinition;
  /** Runs a create as the registry does: default, admit, default, prepare, validate, admit, allocate. */
  create(resource: string, namespace: string, input: JsonObject, as?: RequestContext): JsonObject;
  /** Runs an update of a stored object, or of one of its stored subresources. */
  update(
    resource: string,
    old: JsonObject,
    input: JsonObject,
    options?: { readonly subresource?: string; readonly as?: RequestContext },
  ): JsonObject;
  /** Runs the plug-ins that check, and nothing else. */
  admit(attributes: AdmissionAttributes): void;
}

function resourceOf(kind: KindDefinition): string {
  return kind.group === "" ? kind.plural : `${kind.plural}.${kind.group}`;
}

function metadataOf(object: JsonObject): JsonObject {
  if (isRecord(object["metadata"])) return object["metadata"];
  const created: JsonObject = {};
  object["metadata"] = created;
  return created;
}

/** All kinds and plug-ins over objects in memory, without store and HTTP. */
export function createCluster(): Cluster {
  const objects = new FakeObjects();
  for (const name of ["default", "kube-system"]) {
    objects.put("namespaces", { metadata: { name }, status: { phase: "Active" } });
  }
  objects.put("serviceaccounts", {
    metadata: { name: "default", namespace: "default", uid: "sa-1" },
  });
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const tokens = new ServiceAccountTokens({
    privateKeyPEM: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    issuer,
  });
  const authentication: AuthenticatorOptions = {
    objects,
    tokens,
    audiences: [issuer],
    now: () => now,
  };
  const authorizer = createAuthorizer({ objects, subscribe: () => () => undefined });
  const kinds = createKinds({
    serviceCidrs: ["10.43.0.0/16"],
    nodePorts: { first: 30_000, last: 32_767 },
    randomInt: () => 0,
    objects: () => objects,
    signToken: tokenSigner(tokens, { audience: issuer, uuid: () => "t-1" }),
    authorizer,
    authenticator: createAuthenticator(authentication),
    rules: { rulesFor: () => ({ resourceRules: [], nonResourceRules: [] }) },
    tokenUser: (token, audiences) => userOfToken(token, { ...authentication, audiences }),
  });
  const admission = createAdmission({ randomSuffix: () => "xxxxx", authorizer });
  const byResource = new Map(kinds.map((kind) => [resourceOf(kind), kind]));
  const kindOf = (resource: string): KindDefinition => {
    const kind = byResource.get(resource);
    if (kind === undefined) throw new Error(`no kind ${resource}`);
    return kind;
  };
  return {
    objects,
    kinds,
    tokens,
    kind: kindOf,
    create(resource, namespace, input, as = context()) {
      const kind = kindOf(resource);
      const object = structuredClone(input);
      const metadata = metadataOf(object);
      if (namespace !== "") metadata["namespace"] = namespace;
      const name = text(metadata["name"]);
      kind.strategy.applyDefaults(object);
      const attributes: AdmissionAttributes = {
        operation: "CREATE",
        kind,
        subresource: undefined,
        namespace,
        name,
        object,
        oldObject: undefined,
        context: as,
        objects,
      };
      for (const plugin of admission) plugin.mutate?.(attributes);
      kind.strategy.applyDefaults(object);
      kind.strategy.prepareForCreate(object, as);
      const errors = kind.strategy.validateCreate(object, as);
      if (errors.length > 0) throw invalid(kind, name, errors);
      for (const plugin of admission) plugin.validate?.(attributes);
      kind.strategy.allocate?.(object, undefined, as);
      return object;
    },
    update(resource, old, input, options = {}) {
      const kind = kindOf(resource);
      const { subresource, as = context() } = options;
      const own = subresource === undefined ? undefined : kind.subresources[subresource];
      const strategy = own?.kind === "stored" ? own.strategy : kind.strategy;
      const object = structuredClone(input);
      const name = text(metadataOf(object)["name"]);
      const attributes: AdmissionAttributes = {
        operation: "UPDATE",
        kind,
        subresource,
        namespace: text(metadataOf(object)["namespace"]),
        name,
        object,
        oldObject: old,
        context: as,
        objects,
      };
      strategy.applyDefaults(object);
      for (const plugin of admission) plugin.mutate?.(attributes);
      strategy.prepareForUpdate(object, old, as);
      const errors = strategy.validateUpdate(object, old, as);
      if (errors.length > 0) throw invalid(kind, name, errors);
      for (const plugin of admission) plugin.validate?.(attributes);
      strategy.allocate?.(object, old, as);
      return object;
    },
    admit(attributes) {
      for (const plugin of admission) plugin.validate?.(attributes);
    },
  };
}
