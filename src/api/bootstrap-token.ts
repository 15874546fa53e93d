import { createHmac, timingSafeEqual } from "node:crypto";

/** A bootstrap token in its two parts: the id is public, the secret is not. */
export interface BootstrapToken {
  /** Six characters of [a-z0-9]. */
  readonly id: string;
  /** Sixteen characters of [a-z0-9]. */
  readonly secret: string;
}

/** Namespace of the Secrets that are tokens. */
export const tokenNamespace = "kube-system";
/** `type` of a Secret that is a token. */
export const tokenSecretType = "bootstrap.kubernetes.io/token";
/** The group of everybody who comes with a token. */
export const bootstrappersGroup = "system:bootstrappers";
/** The further group of tokens for nodes, as kubeadm names it. */
export const nodeBootstrappersGroup = "system:bootstrappers:kubeadm:default-node-token";
/** What further groups of a token may be called. */
export const extraGroup = /^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$/;
/** The public ConfigMap that holds address and CA of the cluster, signed with each token. */
export const clusterInfo = { namespace: "kube-public", name: "cluster-info" } as const;
/** Key in {@link clusterInfo} of the kubeconfig that is signed. */
export const clusterInfoKey = "kubeconfig";
/** Prefix of the keys in {@link clusterInfo} that hold signatures; a token's id follows. */
export const signaturePrefix = "jws-kubeconfig-";

/** The two parts of `ID.SECRET`; undefined when the text is no bootstrap token. */
export function parseBootstrapToken(text: string): BootstrapToken | undefined {
  const [, id, secret] = /^([a-z0-9]{6})\.([a-z0-9]{16})$/.exec(text) ?? [];
  return id === undefined || secret === undefined ? undefined : { id, secret };
}

/** Name of the Secret of a token. */
export function tokenSecretName(id: string): string {
  return `bootstrap-token-${id}`;
}

/** What a token's Secret says; texts that are missing are "". */
export interface TokenSecret extends BootstrapToken {
  readonly description: string;
  /** Milliseconds since the epoch; undefined = for ever, NaN = unreadable, which counts as expired. */
  readonly expiresAt: number | undefined;
  /** May be used as a bearer token. */
  readonly authenticates: boolean;
  /** Signs {@link clusterInfo}. */
  readonly signs: boolean;
  /** Comma separated. */
  readonly extraGroups: string;
}

/** Reads the `data` (base64 texts) of a token's Secret. */
export function readTokenSecret(data: Readonly<Record<string, unknown>>): TokenSecret {
  const text = (key: string): string => {
    const value = data[key];
    return typeof value === "string" ? Buffer.from(value, "base64").toString("utf8") : "";
  };
  const expiration = text("expiration");
  return {
    id: text("token-id"),
    secret: text("token-secret"),
    description: text("description"),
    expiresAt: expiration === "" ? undefined : parseTime(expiration),
    authenticates: text("usage-bootstrap-authentication") === "true",
    signs: text("usage-bootstrap-signing") === "true",
    extraGroups: text("auth-extra-groups"),
  };
}

/** RFC 3339 only: `Date.parse` knows more than that. */
function parseTime(text: string): number {
  return /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(text)
    ? Date.parse(text)
    : Number.NaN;
}

/** Whether a token is no longer good at `now`. */
export function isExpiredToken(token: Pick<TokenSecret, "expiresAt">, now: number): boolean {
  return token.expiresAt !== undefined && !(token.expiresAt > now);
}

/** The JWS (RFC 7515, HS256, appendix F: detached content) of `content` under a token. */
export function detachedSignature(content: string, token: BootstrapToken): string {
  const header = Buffer.from(`{"alg":"HS256","kid":"${token.id}"}`).toString("base64url");
  const body = Buffer.from(content).toString("base64url");
  const mac = createHmac("sha256", token.secret).update(`${header}.${body}`).digest("base64url");
  return `${header}..${mac}`;
}

/** Whether `signature` is what this token makes of `content`. */
export function isSignedWith(signature: string, content: string, token: BootstrapToken): boolean {
  return equalTexts(signature, detachedSignature(content, token));
}

/** Equality that takes as long for a near miss as for any other. */
export function equalTexts(left: string, right: string): boolean {
  const a = Buffer.from(left);
  const b = Buffer.from(right);
  return a.length === b.length && timingSafeEqual(a, b);
}
