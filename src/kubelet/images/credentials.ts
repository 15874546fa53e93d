import { isRecord, optionalString } from "../../lib/guard.ts";
import type { RegistryAuth } from "../../runtime/types.ts";

interface KeyringEntry {
  readonly host: string;
  readonly path: string;
  readonly auth: RegistryAuth;
}

/** Credentials by registry, as pull secrets carry them. */
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
 * Reads one pull secret.
 *
 * @param text The JSON of `.dockerconfigjson` (with `auths`) or of `.dockercfg` (without).
 * @returns An empty keyring for text that is not JSON: a broken secret must not stop an anonymous pull.
 */
export function parseKeyring(text: string): Keyring {
  let config: unknown;
  try {
    config = JSON.parse(text);
  } catch {
    return [];
  }
  if (!isRecord(config)) return [];
  const auths = isRecord(config["auths"]) ? config["auths"] : config;
  return Object.entries(auths).flatMap(([server, value]) => {
    const auth = parseAuth(server, value);
    return auth === undefined ? [] : [{ ...parseServer(server), auth }];
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

/** Credentials to try for an image: the most specific registry path first. */
export function credentialsFor(image: string, keyring: Keyring): readonly RegistryAuth[] {
  const { host, path } = splitReference(image);
  return keyring
    .filter(
      (entry) =>
        hostMatches(entry.host, host) &&
        (entry.path === "" || path === entry.path || path.startsWith(`${entry.path}/`)),
    )
    .toSorted((a, b) => b.path.length - a.path.length)
    .map(({ auth }) => auth);
}
