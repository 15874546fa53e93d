import {
  createPrivateKey,
  createPublicKey,
  createHash,
  type KeyObject,
  sign,
  verify,
} from "node:crypto";

import { isRecord, type JsonRecord } from "../../lib/guard.ts";

/** An object that a token is bound to: it dies with the object. */
export interface BoundObject {
  readonly kind: "Pod" | "Secret" | "Node";
  readonly name: string;
  readonly uid: string;
}

/** What a ServiceAccount token says (KEP-1205). */
export interface TokenClaims {
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly serviceAccountUID: string;
  readonly audiences: readonly string[];
  /** Seconds since the epoch. */
  readonly issuedAt: number;
  readonly expiresAt: number;
  readonly tokenID: string;
  readonly bound: BoundObject | undefined;
  /** Node of the bound pod. */
  readonly node: { readonly name: string; readonly uid: string } | undefined;
}

function base64url(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

function decode(part: string): JsonRecord | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, "base64url").toString("utf8"));
    return isRecord(value) ? value : undefined;
  } catch {
    // Not our token then; the caller answers 401 for all of these alike.
    return undefined;
  }
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function boundObject(claims: JsonRecord): BoundObject | undefined {
  // The node of a bound pod is named too; only alone it is what the token is bound to.
  for (const [field, kind] of [
    ["pod", "Pod"],
    ["secret", "Secret"],
    ["node", "Node"],
  ] as const) {
    const value = claims[field];
    if (isRecord(value)) return { kind, name: text(value["name"]), uid: text(value["uid"]) };
  }
  return undefined;
}

function parseClaims(payload: JsonRecord): TokenClaims | undefined {
  const claims = payload["kubernetes.io"];
  if (!isRecord(claims) || !isRecord(claims["serviceaccount"])) return undefined;
  const account = claims["serviceaccount"];
  const node = claims["node"];
  const audiences = payload["aud"];
  return {
    namespace: text(claims["namespace"]),
    serviceAccount: text(account["name"]),
    serviceAccountUID: text(account["uid"]),
    audiences: Array.isArray(audiences) ? audiences.map(text) : [text(audiences)],
    issuedAt: Number(payload["iat"]),
    expiresAt: Number(payload["exp"]),
    tokenID: text(payload["jti"]),
    bound: boundObject(claims),
    node: isRecord(node) ? { name: text(node["name"]), uid: text(node["uid"]) } : undefined,
  };
}

/** Makes and reads ServiceAccount tokens: JWTs signed with ES256 (RFC 7515, RFC 7518 3.4). */
export class ServiceAccountTokens {
  readonly #privateKey: KeyObject;
  readonly #publicKey: KeyObject;
  readonly #keyID: string;
  readonly issuer: string;

  constructor(options: { readonly privateKeyPEM: string; readonly issuer: string }) {
    this.#privateKey = createPrivateKey(options.privateKeyPEM);
    this.#publicKey = createPublicKey(this.#privateKey);
    const der = this.#publicKey.export({ type: "spki", format: "der" });
    this.#keyID = createHash("sha256").update(der).digest("base64url");
    this.issuer = options.issuer;
  }

  sign(claims: TokenClaims): string {
    const { bound, node } = claims;
    const payload = {
      aud: claims.audiences,
      exp: claims.expiresAt,
      iat: claims.issuedAt,
      iss: this.issuer,
      jti: claims.tokenID,
      "kubernetes.io": {
        namespace: claims.namespace,
        ...(node === undefined ? {} : { node }),
        ...(bound === undefined
          ? {}
          : { [bound.kind.toLowerCase()]: { name: bound.name, uid: bound.uid } }),
        serviceaccount: { name: claims.serviceAccount, uid: claims.serviceAccountUID },
      },
      nbf: claims.issuedAt,
      sub: `system:serviceaccount:${claims.namespace}:${claims.serviceAccount}`,
    };
    const input = `${base64url({ alg: "ES256", kid: this.#keyID })}.${base64url(payload)}`;
    const signature = sign("sha256", Buffer.from(input), {
      key: this.#privateKey,
      dsaEncoding: "ieee-p1363",
    });
    return `${input}.${signature.toString("base64url")}`;
  }

  /** The claims of a token of ours that is valid at `now` (milliseconds); undefined for anything else. */
  verify(token: string, now: number): TokenClaims | undefined {
    const [header = "", payload = "", signature = "", extra] = token.split(".");
    if (extra !== undefined || decode(header)?.["alg"] !== "ES256") return undefined;
    const good = verify(
      "sha256",
      Buffer.from(`${header}.${payload}`),
      { key: this.#publicKey, dsaEncoding: "ieee-p1363" },
      Buffer.from(signature, "base64url"),
    );
    const body = good ? decode(payload) : undefined;
    if (body === undefined || body["iss"] !== this.issuer) return undefined;
    const claims = parseClaims(body);
    if (claims === undefined || !(claims.expiresAt * 1000 > now)) return undefined;
    return claims;
  }

  /** The public key as a JSON Web Key Set, for /openid/v1/jwks. */
  jwks(): JsonRecord {
    const jwk = this.#publicKey.export({ format: "jwk" });
    return {
      keys: [
        {
          use: "sig",
          kty: jwk.kty,
          kid: this.#keyID,
          alg: "ES256",
          crv: jwk.crv,
          x: jwk.x,
          y: jwk.y,
        },
      ],
    };
  }
}
