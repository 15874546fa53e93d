import { forbidden, StatusError } from "../status-error.ts";
import type { AuthorizationAttributes, Authorizer } from "../types.ts";

function refusal(attributes: AuthorizationAttributes): string {
  const user = JSON.stringify(attributes.user.name);
  const verb = attributes.verb;
  if (attributes.resource === "")
    return `User ${user} cannot ${verb} path ${JSON.stringify(attributes.path)}`;
  const resource =
    attributes.subresource === ""
      ? attributes.resource
      : `${attributes.resource}/${attributes.subresource}`;
  const what = `User ${user} cannot ${verb} resource ${JSON.stringify(resource)} in API group ${JSON.stringify(attributes.group)}`;
  return attributes.namespace === ""
    ? `${what} at the cluster scope`
    : `${what} in the namespace ${JSON.stringify(attributes.namespace)}`;
}

/** @throws {StatusError} 403 in the API's words. */
export function requireAuthorized(
  authorizer: Authorizer,
  attributes: AuthorizationAttributes,
): void {
  const { allowed, reason } = authorizer.authorize(attributes);
  if (allowed) return;
  const text = reason === "" ? refusal(attributes) : `${refusal(attributes)}: ${reason}`;
  if (attributes.resource === "") throw new StatusError(403, "Forbidden", `forbidden: ${text}`, {});
  const target = { plural: attributes.resource, kind: "", group: attributes.group };
  throw forbidden(target, attributes.name, text);
}
