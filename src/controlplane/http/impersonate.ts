import { forbidden, StatusError } from "../status-error.ts";
import type { Authorizer, UserInfo } from "../types.ts";

/** What a request says in Impersonate-* headers. */
export interface Impersonation {
  readonly user: string;
  readonly uid: string;
  readonly groups: readonly string[];
  readonly extra: Readonly<Record<string, readonly string[]>>;
}

type Headers = Readonly<Record<string, readonly string[] | undefined>>;

const anonymous: UserInfo = {
  name: "system:anonymous",
  uid: "",
  groups: ["system:unauthenticated"],
  extra: {},
};

const extraPrefix = "impersonate-extra-";

/**
 * Reads the headers (lower-case names, each with all its values); undefined when the request is made in its own name.
 *
 * @throws {StatusError} groups, uid or extra without a user.
 */
export function impersonationOf(headers: Headers): Impersonation | undefined {
  const [user = ""] = headers["impersonate-user"] ?? [];
  const [uid = ""] = headers["impersonate-uid"] ?? [];
  const groups = headers["impersonate-group"] ?? [];
  const extra: Record<string, readonly string[]> = {};
  for (const [name, values] of Object.entries(headers))
    if (name.startsWith(extraPrefix) && values !== undefined)
      extra[decodeURIComponent(name.slice(extraPrefix.length))] = values;
  if (user !== "") return { user, uid, groups, extra };
  if (uid === "" && groups.length === 0 && Object.keys(extra).length === 0) return undefined;
  throw new StatusError(
    500,
    "InternalError",
    "Internal error occurred: impersonation headers without Impersonate-User",
  );
}

interface Claim {
  readonly group: string;
  readonly resource: string;
  readonly kind: string;
  readonly subresource?: string;
  readonly namespace?: string;
  readonly name: string;
}

const serviceAccount = /^system:serviceaccount:([^:]+):([^:]+)$/;

/** Everything the requester must be allowed to `impersonate`. */
function claims(wanted: Impersonation): readonly Claim[] {
  const [, namespace, name] = serviceAccount.exec(wanted.user) ?? [];
  const user: Claim =
    namespace === undefined || name === undefined
      ? { group: "", resource: "users", kind: "User", name: wanted.user }
      : { group: "", resource: "serviceaccounts", kind: "ServiceAccount", namespace, name };
  const authentication = "authentication.k8s.io";
  return [
    user,
    ...wanted.groups.map((group) => ({
      group: "",
      resource: "groups",
      kind: "Group",
      name: group,
    })),
    ...(wanted.uid === ""
      ? []
      : [{ group: authentication, resource: "uids", kind: "UID", name: wanted.uid }]),
    ...Object.entries(wanted.extra).flatMap(([key, values]) =>
      values.map((value) => ({
        group: authentication,
        resource: "userextras",
        kind: "UserExtra",
        subresource: key,
        name: value,
      })),
    ),
  ];
}

/**
 * The user a request acts as, once the requester was found to be allowed to (user impersonation of the API server).
 *
 * @throws {StatusError} 403 when it is not.
 */
export function impersonate(
  requester: UserInfo | undefined,
  wanted: Impersonation,
  authorizer: Authorizer | undefined,
): UserInfo {
  const user = requester ?? anonymous;
  for (const claim of claims(wanted)) {
    const { allowed, reason } = authorizer?.authorize({
      user,
      verb: "impersonate",
      group: claim.group,
      version: "v1",
      resource: claim.resource,
      subresource: claim.subresource ?? "",
      namespace: claim.namespace ?? "",
      name: claim.name,
      path: "",
      fieldSelector: "",
    }) ?? { allowed: false, reason: "" };
    if (allowed) continue;
    const where =
      claim.namespace === undefined
        ? "at the cluster scope"
        : `in the namespace "${claim.namespace}"`;
    const because = reason === "" ? "" : `: ${reason}`;
    throw forbidden(
      { plural: claim.resource, kind: claim.kind, group: claim.group },
      claim.name,
      `User "${user.name}" cannot impersonate resource "${claim.resource}" in API group "${claim.group}" ${where}${because}`,
    );
  }
  return { name: wanted.user, uid: wanted.uid, groups: groupsOf(wanted), extra: wanted.extra };
}

function groupsOf(wanted: Impersonation): readonly string[] {
  const [, namespace] = serviceAccount.exec(wanted.user) ?? [];
  const implied =
    wanted.groups.length === 0 && namespace !== undefined
      ? ["system:serviceaccounts", `system:serviceaccounts:${namespace}`]
      : [];
  const groups = [...wanted.groups, ...implied];
  const everyone =
    wanted.user === "system:anonymous" ? "system:unauthenticated" : "system:authenticated";
  const settled = ["system:authenticated", "system:unauthenticated"].some((group) =>
    groups.includes(group),
  );
  return settled ? groups : [...groups, everyone];
}
