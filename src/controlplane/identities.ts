import type { Identity } from "./controllers/controllers.ts";
import type { UserInfo } from "./types.ts";

/** As whom a part of the control plane calls the API. */
export function userOf(identity: Identity): UserInfo {
  if (identity.kind === "user") {
    // The server itself may do everything; the others have the roles of their jobs.
    const groups = identity.name === "system:apiserver" ? ["system:masters"] : [];
    return {
      name: identity.name,
      uid: "",
      groups: [...groups, "system:authenticated"],
      extra: {},
    };
  }
  return {
    name: `system:serviceaccount:kube-system:${identity.name}`,
    uid: "",
    groups: [
      "system:serviceaccounts",
      "system:serviceaccounts:kube-system",
      "system:authenticated",
    ],
    extra: {},
  };
}

/** The API server itself. */
export const serverUser = userOf({ kind: "user", name: "system:apiserver" });
