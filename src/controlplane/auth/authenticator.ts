import { X509Certificate } from "node:crypto";

import { isRecord } from "../../lib/guard.ts";
import { StatusError } from "../status-error.ts";
import type { Authenticator, ObjectReader, UserInfo } from "../types.ts";
import type { ServiceAccountTokens, TokenClaims } from "./tokens.ts";

export interface AuthenticatorOptions {
  readonly objects: ObjectReader;
  readonly tokens: ServiceAccountTokens;
  /** Audiences of which a token must name one. */
  readonly audiences: readonly string[];
  readonly now: () => number;
  /** Other bearer tokens (bootstrap tokens), which are for the API server itself; undefined = not known. */
  readonly otherToken?: (token: string) => UserInfo | undefined;
}

/** Answer to a bad credential; deliberately without a hint which part was wrong. */
export function unauthorized(): StatusError {
  return new StatusError(401, "Unauthorized", "Unauthorized");
}

const authenticated = "system:authenticated";

/** CN is the user, each O a group (x509 request authenticator). */
export function userOfCertificate(der: Uint8Array): UserInfo | undefined {
  const attributes = new X509Certificate(der).subject
    .split("\n")
    .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)] as const);
  const name = attributes.findLast(([key]) => key === "CN")?.[1];
  if (name === undefined || name === "") return undefined;
  const groups = attributes.filter(([key]) => key === "O").map(([, value]) => value);
  return { name, uid: "", groups: [...groups, authenticated], extra: {} };
}

/** How long after its deletionTimestamp an object that finalizers keep still vouches for tokens. */
const deletedLeewayMs = 60_000;

interface Reference {
  readonly resource: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

/** Whether the object is there under the same uid and not deleted for longer than the leeway. */
function vouches(objects: ObjectReader, reference: Reference, now: number): boolean {
  const { resource, namespace, name, uid } = reference;
  const metadata = objects.get(resource, namespace, name)?.["metadata"];
  if (!isRecord(metadata) || metadata["uid"] !== uid) return false;
  const deleted = metadata["deletionTimestamp"];
  return typeof deleted !== "string" || Date.parse(deleted) >= now - deletedLeewayMs;
}

/**
 * The user a token stands for, if the account and the object it is bound to still exist under the same uid at `now`
 * (milliseconds).
 */
export function userOfClaims(
  claims: TokenClaims,
  objects: ObjectReader,
  now: number,
): UserInfo | undefined {
  const { namespace, serviceAccount, bound, node } = claims;
  const account = { namespace, name: serviceAccount, uid: claims.serviceAccountUID };
  if (!vouches(objects, { resource: "serviceaccounts", ...account }, now)) return undefined;
  if (bound !== undefined) {
    const resource = { Pod: "pods", Secret: "secrets", Node: "nodes" }[bound.kind];
    const at = bound.kind === "Node" ? "" : namespace;
    const { name, uid } = bound;
    if (!vouches(objects, { resource, namespace: at, name, uid }, now)) return undefined;
  }
  return {
    name: `system:serviceaccount:${namespace}:${serviceAccount}`,
    uid: claims.serviceAccountUID,
    groups: ["system:serviceaccounts", `system:serviceaccounts:${namespace}`, authenticated],
    extra: {
      "authentication.kubernetes.io/credential-id": [`JTI=${claims.tokenID}`],
      ...(bound?.kind === "Pod"
        ? {
            "authentication.kubernetes.io/pod-name": [bound.name],
            "authentication.kubernetes.io/pod-uid": [bound.uid],
          }
        : {}),
      ...(node === undefined
        ? {}
        : {
            "authentication.kubernetes.io/node-name": [node.name],
            "authentication.kubernetes.io/node-uid": [node.uid],
          }),
    },
  };
}

/** The user behind a token for one of `audiences`; undefined when it is not valid (TokenReview asks this too). */
export function userOfToken(token: string, options: AuthenticatorOptions): UserInfo | undefined {
  const claims = options.tokens.verify(token, options.now());
  if (claims === undefined) return options.otherToken?.(token);
  if (!claims.audiences.some((audience) => options.audiences.includes(audience))) return undefined;
  return userOfClaims(claims, options.objects, options.now());
}

/** Client certificates first, then bearer tokens. A credential that is there but wrong is refused, never ignored. */
export function createAuthenticator(options: AuthenticatorOptions): Authenticator {
  // A connection shows the same bytes with each of its requests.
  const users = new WeakMap<Uint8Array, { readonly user: UserInfo | undefined }>();
  const userOf = (certificate: Uint8Array): UserInfo | undefined => {
    const known = users.get(certificate) ?? { user: userOfCertificate(certificate) };
    users.set(certificate, known);
    return known.user;
  };
  return {
    authenticate({ certificate, bearerToken }) {
      if (certificate !== undefined) {
        const user = userOf(certificate);
        if (user !== undefined) return user;
      }
      if (bearerToken === undefined) return undefined;
      const user = userOfToken(bearerToken, options);
      if (user === undefined) throw unauthorized();
      return user;
    },
  };
}
