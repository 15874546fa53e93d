import { createHash } from "node:crypto";

import { isRecord, optionalString } from "../../lib/guard.ts";
import type { RegistryAuth } from "../../runtime/types.ts";

/** An object in the API, and no other of that name. */
export interface Coordinates {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
}

/** Whose a credential is. */
export interface CredentialSource extends Coordinates {
  readonly kind: "secret" | "serviceAccount";
}

/** One thing to show to a registry. */
export interface Credential {
  readonly auth: RegistryAuth;
  /** Undefined for one that all pods of the node may use. */
  readonly source: CredentialSource | undefined;
}

interface KeyringEntry extends Credential {
  readonly host: string;
  readonly path: string;
}

/** Credentials of one owner by registry: of a pod's secrets, of the node's files, of its credential providers. */
export type Keyring = readonly KeyringEntry[];

const dockerHub = new Set(["docker.io", "index.docker.io", "registry-1.docker.io"]);

function splitReference(image: string): { readonly host: string; readonly path: string } {
  const [name = ""] = image.split("@");
  const slash = name.indexOf("/");
  const first = slash < 0 ? "" : name.slice(0, slash);
  const isHost = /[.:]/.test(first) || first === "localhost";
  const path = (isHost ? name.slice(slash + 1) : name).replace(/:[^/:]+$/, "");
  return isHost ? { host: canonicalHost(first), path } : { host: "docker.io", path };
}

/** The image's repository with its registry, without tag and digest: `docker.io/library/busybox`. */
export function repositoryOf(image: string): string {
  const { host, path } = splitReference(image);
  return `${host}/${host === "docker.io" && !path.includes("/") ? `library/${path}` : path}`;
}

function canonicalHost(host: string): string {
  return dockerHub.has(host) ? "docker.io" : host;
}

function parseServer(server: string): { readonly host: string; readonly path: string } {
  const bare = server.replace(/^https?:\/\//, "").replace(/\/+$/, "");
  const slash = bare.indexOf("/");
  const host = slash < 0 ? bare : bare.slice(0, slash);
  // "https://index.docker.io/v1/" is how clients write Docker Hub.
  const path = slash < 0 ? "" : bare.slice(slash + 1).replace(/^v[12]$/, "");
  return { host: canonicalHost(host), path };
}

function parseAuth(server: string, value: unknown): RegistryAuth | undefined {
  if (!isRecord(value)) return undefined;
  let username = optionalString(value["username"]);
  let password = optionalString(value["password"]);
  const encoded = optionalString(value["auth"]);
  if (encoded !== undefined && username === undefined) {
    const decoded = Buffer.from(encoded, "base64").toString("utf8");
    const colon = decoded.indexOf(":");
    if (colon > 0) [username, password] = [decoded.slice(0, colon), decoded.slice(colon + 1)];
  }
  const identityToken = optionalString(value["identitytoken"]);
  const registryToken = optionalString(value["registrytoken"]);
  return {
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(identityToken === undefined ? {} : { identityToken }),
    ...(registryToken === undefined ? {} : { registryToken }),
    serverAddress: server,
  };
}

/**
 * Reads one pull secret, or one of the files in which container tools keep what people logged in with.
 *
 * @param text The JSON of `.dockerconfigjson` (with `auths`) or of `.dockercfg` (without).
 * @param secret Absent for a file on the node.
 * @returns An empty keyring for text that is not JSON: a broken secret must not stop an anonymous pull.
 */
export function parseKeyring(text: string, secret?: Coordinates): Keyring {
  let config: unknown;
  try {
    config = JSON.parse(text);
  } catch {
    return [];
  }
  if (!isRecord(config)) return [];
  const auths = isRecord(config["auths"]) ? config["auths"] : config;
  const source = secret === undefined ? undefined : ({ kind: "secret", ...secret } as const);
  return Object.entries(auths).flatMap(([server, value]) => {
    const auth = parseAuth(server, value);
    return auth === undefined ? [] : [{ ...parseServer(server), auth, source }];
  });
}

function hostMatches(pattern: string, host: string): boolean {
  const [patternName = "", patternPort = ""] = pattern.split(":");
  const [name = "", port = ""] = host.split(":");
  if (patternPort !== port) return false;
  const wanted = patternName.split(".");
  const parts = name.split(".");
  if (wanted.length !== parts.length) return false;
  return wanted.every((part, index) => globMatches(part, parts[index] ?? ""));
}

function globMatches(pattern: string, text: string): boolean {
  const source = pattern.replace(/[\\^$.+?()[\]{}|]/g, String.raw`\$&`).replaceAll("*", ".*");
  return new RegExp(`^${source}$`).test(text);
}

function isFor({ host, path }: KeyringEntry, image: ReturnType<typeof splitReference>): boolean {
  return hostMatches(host, image.host) && image.path.startsWith(path);
}

/** What a credential provider has answered, as a keyring. */
export function keyringOf(
  auths: ReadonlyMap<string, { readonly username: string; readonly password: string }>,
  source: CredentialSource | undefined,
): Keyring {
  return [...auths].map(([server, { password, username }]) => ({
    ...parseServer(server),
    auth: { username, password, serverAddress: server },
    source,
  }));
}

/** Host and path of a pattern for images, such as `*.registry.io:5000/team`; undefined when it is none. */
export function splitPattern(
  pattern: string,
): { readonly host: string; readonly path: string } | undefined {
  const [, host, path = ""] = /^([^\s/:]+(?::\d*)?)(?:\/(\S*))?$/.exec(pattern) ?? [];
  return host === undefined ? undefined : { host, path };
}

/**
 * Whether a pattern is for a repository: as many parts in both hosts, each of which matches (`*` stands within one), the
 * same port, and a path that begins like the pattern's.
 *
 * @param repository As {@link repositoryOf} gives it.
 */
export function matchesImage(pattern: string, repository: string): boolean {
  const wanted = splitPattern(pattern);
  const image = splitPattern(repository);
  if (wanted === undefined || image === undefined) return false;
  return hostMatches(wanted.host, image.host) && image.path.startsWith(wanted.path);
}

/** What an owner has to show for an image, in the order in which it is tried: the most specific first. */
export function credentialsFor(image: string, keyring: Keyring): readonly Credential[] {
  const wanted = splitReference(image);
  const key = ({ host, path }: KeyringEntry): string => `${host}/${path}`;
  return keyring
    .filter((entry) => isFor(entry, wanted))
    .toSorted((a, b) => compareText(key(b), key(a)))
    .map(({ auth, source }) => ({ auth, source }));
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

/** Tells whether two credentials are the same without keeping them. */
export function credentialHash({ auth }: Credential): string {
  const { identityToken, password, registryToken, username } = auth;
  const text = JSON.stringify([username, password, identityToken, registryToken]);
  return createHash("sha256").update(text).digest("hex");
}
