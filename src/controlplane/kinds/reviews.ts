import { StatusError, badRequest, invalid } from "../status-error.ts";
import type {
  AuthorizationAttributes,
  Authenticator,
  Authorizer,
  JsonObject,
  KindDefinition,
  SubresourceRequest,
  UserInfo,
} from "../types.ts";
import { isEmpty, nameOf, record, records, strings, text } from "./access.ts";
import { invalidValue } from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { defineStrategy } from "./strategy.ts";
import { nameColumn } from "./table.ts";

/** The rules that apply to a user, as SelfSubjectRulesReview reports them. */
export interface RulesReader {
  rulesFor(
    user: UserInfo,
    namespace: string,
  ): {
    readonly resourceRules: readonly JsonObject[];
    readonly nonResourceRules: readonly JsonObject[];
  };
}

export interface ReviewDeps {
  readonly authorizer: Authorizer;
  readonly authenticator: Authenticator;
  readonly rules: RulesReader;
  /** The user of a token made for one of `audiences`; undefined when it is not. For TokenReviews that name audiences. */
  readonly tokenUser?: (token: string, audiences: readonly string[]) => UserInfo | undefined;
}

const authorization = "authorization.k8s.io";
const authentication = "authentication.k8s.io";

function userJson(user: UserInfo): JsonObject {
  return {
    username: user.name,
    ...(user.uid === "" ? {} : { uid: user.uid }),
    ...(user.groups.length === 0 ? {} : { groups: [...user.groups] }),
    ...(Object.keys(user.extra).length === 0 ? {} : { extra: structuredClone(user.extra) }),
  };
}

function subjectOf(spec: Readonly<JsonObject>): UserInfo {
  const extra: Record<string, readonly string[]> = {};
  for (const [key, value] of Object.entries(record(spec["extra"]))) extra[key] = strings(value);
  return {
    name: text(spec["user"]),
    uid: text(spec["uid"]),
    groups: strings(spec["groups"]),
    extra,
  };
}

/** `requirements` of a field selector as the selector text that list requests carry. */
function fieldSelector(attributes: Readonly<JsonObject>): string {
  const selector = record(attributes["fieldSelector"]);
  const raw = text(selector["rawSelector"]);
  if (raw !== "") return raw;
  return records(selector["requirements"])
    .filter((item) => item["operator"] === "In" && strings(item["values"]).length === 1)
    .map((item) => `${text(item["key"])}=${strings(item["values"])[0] ?? ""}`)
    .join(",");
}

function attributesOf(spec: Readonly<JsonObject>, user: UserInfo): AuthorizationAttributes {
  const resource = record(spec["resourceAttributes"]);
  const path = record(spec["nonResourceAttributes"]);
  return {
    user,
    verb: text(resource["verb"]) || text(path["verb"]),
    group: text(resource["group"]),
    version: text(resource["version"]) || "*",
    resource: text(resource["resource"]),
    subresource: text(resource["subresource"]),
    namespace: text(resource["namespace"]),
    name: text(resource["name"]),
    path: text(path["path"]),
    fieldSelector: fieldSelector(resource),
  };
}

function checkReviewSpec(spec: Readonly<JsonObject>, kind: string): void {
  const resource = spec["resourceAttributes"] !== undefined;
  const path = spec["nonResourceAttributes"] !== undefined;
  if (resource !== path) return;
  throw invalid({ plural: kind, kind, group: authorization }, "", [
    resource
      ? invalidValue(
          "spec.nonResourceAttributes",
          spec["nonResourceAttributes"],
          "cannot be specified in combination with resourceAttributes",
        )
      : invalidValue(
          "spec.resourceAttributes",
          null,
          "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
  ]);
}

function decide(deps: ReviewDeps, attributes: AuthorizationAttributes): JsonObject {
  const { allowed, reason } = deps.authorizer.authorize(attributes);
  return { allowed, ...(reason === "" ? {} : { reason }) };
}

function accessReview(
  kind: "SubjectAccessReview" | "LocalSubjectAccessReview" | "SelfSubjectAccessReview",
  deps: ReviewDeps,
): (request: SubresourceRequest) => JsonObject {
  return (request) => {
    const body = request.body ?? {};
    const spec = record(body["spec"]);
    checkReviewSpec(spec, kind);
    if (kind === "LocalSubjectAccessReview") {
      const namespace = text(record(spec["resourceAttributes"])["namespace"]);
      if (namespace !== request.namespace) {
        throw badRequest(
          `spec.resourceAttributes.namespace must match namespace: ${request.namespace}`,
        );
      }
    }
    if (
      kind !== "SelfSubjectAccessReview" &&
      text(spec["user"]) === "" &&
      isEmpty(spec["groups"])
    ) {
      throw invalid({ plural: kind, kind, group: authorization }, "", [
        invalidValue("spec.user", "", "at least one of user or group must be specified"),
      ]);
    }
    const user = kind === "SelfSubjectAccessReview" ? request.context.user : subjectOf(spec);
    return { ...body, status: decide(deps, attributesOf(spec, user)) };
  };
}

function rulesReview(request: SubresourceRequest, deps: ReviewDeps): JsonObject {
  const body = request.body ?? {};
  const namespace = text(record(body["spec"])["namespace"]);
  if (namespace === "") throw badRequest("no namespace on request");
  const { resourceRules, nonResourceRules } = deps.rules.rulesFor(request.context.user, namespace);
  return {
    ...body,
    status: {
      resourceRules: [...resourceRules],
      nonResourceRules: [...nonResourceRules],
      // What the Node authorizer allows depends on objects and is not in the list.
      incomplete: request.context.user.groups.includes("system:nodes"),
    },
  };
}

function tokenReview(request: SubresourceRequest, deps: ReviewDeps): JsonObject {
  const body = request.body ?? {};
  const spec = record(body["spec"]);
  const bearerToken = text(spec["token"]);
  if (bearerToken === "") throw badRequest("token is required for TokenReview in authentication");
  const audiences = strings(spec["audiences"]);
  if (audiences.length > 0) return audienceReview(body, bearerToken, audiences, deps.tokenUser);
  try {
    const user = deps.authenticator.authenticate({ certificate: undefined, bearerToken });
    return user === undefined
      ? { ...body, status: { user: {} } }
      : { ...body, status: { authenticated: true, user: userJson(user) } };
  } catch (error) {
    if (!(error instanceof StatusError)) throw error;
    return { ...body, status: { user: {}, error: "invalid bearer token" } };
  }
}

function audienceReview(
  body: Readonly<JsonObject>,
  token: string,
  requested: readonly string[],
  tokenUser: ReviewDeps["tokenUser"],
): JsonObject {
  if (tokenUser === undefined) {
    throw badRequest("spec.audiences is not supported by this server; leave it out");
  }
  const audiences = requested.filter((audience) => tokenUser(token, [audience]) !== undefined);
  const user = tokenUser(token, audiences);
  return user === undefined
    ? { ...body, status: { user: {}, error: "invalid bearer token" } }
    : { ...body, status: { authenticated: true, user: userJson(user), audiences } };
}

function reviewKind(
  identity: { readonly group: string; readonly kind: string; readonly schema: string },
  answer: (request: SubresourceRequest) => JsonObject,
  namespaced = false,
): KindDefinition {
  return defineKind({
    group: identity.group,
    kind: identity.kind,
    plural: `${identity.kind.toLowerCase()}s`,
    schema: `io.k8s.api.${identity.schema}.v1.${identity.kind}`,
    namespaced,
    verbs: ["create"],
    durability: "ephemeral",
    strategy: defineStrategy({ validateName: () => [] }),
    table: { columns: [nameColumn], row: (review) => [nameOf(review)] },
    answer,
  });
}

/** The kinds that are questions: who am I, may I, is this token good. Nothing of them is stored. */
export function createReviewKinds(deps: ReviewDeps): readonly KindDefinition[] {
  const asks = (kind: Parameters<typeof accessReview>[0], namespaced = false): KindDefinition =>
    reviewKind(
      { group: authorization, kind, schema: "authorization" },
      accessReview(kind, deps),
      namespaced,
    );
  const authn = (kind: string): Parameters<typeof reviewKind>[0] => ({
    group: authentication,
    kind,
    schema: "authentication",
  });
  return [
    asks("SelfSubjectAccessReview"),
    asks("SubjectAccessReview"),
    asks("LocalSubjectAccessReview", true),
    reviewKind(
      { group: authorization, kind: "SelfSubjectRulesReview", schema: "authorization" },
      (request) => rulesReview(request, deps),
    ),
    reviewKind(authn("SelfSubjectReview"), (request) => ({
      ...request.body,
      status: { userInfo: userJson(request.context.user) },
    })),
    reviewKind(authn("TokenReview"), (request) => tokenReview(request, deps)),
  ];
}
