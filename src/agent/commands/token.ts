import { randomInt } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";

import {
  type BootstrapToken,
  clusterInfo,
  clusterInfoKey,
  extraGroup,
  isExpiredToken,
  readTokenSecret,
  tokenNamespace,
  tokenSecretName,
  tokenSecretType,
} from "../../api/bootstrap-token.ts";
import { ApiUnavailableError, isAlreadyExists, isNotFound } from "../../api/errors.ts";
import { createHttpClient, type HttpClient } from "../../api/http-client.ts";
import { loadKubeconfig } from "../../api/kubeconfig.ts";
import { createObject, deleteObject, getObject, listObjects } from "../../api/objects.ts";
import { CONFIG_MAPS, SECRETS } from "../../api/resources.ts";
import type { Secret } from "../../api/types.gen.ts";
import { systemClock } from "../../lib/clock.ts";
import { errorMessage, SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { TokenCreateFlags, TokenFlags } from "../flags.ts";
import { certificatesIn, publicKeyHash } from "../join/ca-hash.ts";
import { readClusterInfo } from "../join/cluster-info.ts";
import { remoraVersion } from "../version.ts";

const unitMs = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/**
 * Milliseconds of a duration such as `24h` or `1h30m`; 0 for `0`.
 *
 * @throws {SetupError}
 */
export function parseDuration(text: string): number {
  if (text === "0") return 0;
  if (!/^(\d+[smhd])+$/.test(text)) {
    throw new SetupError(`--ttl ${text}: must be a duration such as 30m, 24h or 7d, or 0`);
  }
  let total = 0;
  for (const [, count = "", unit = ""] of text.matchAll(/(\d+)([smhd])/g))
    total += Number(count) * unitMs[unit as keyof typeof unitMs];
  return total;
}

/** @throws {SetupError} for a group that no API server would accept with a token. */
export function checkGroups(groups: readonly string[]): void {
  const wrong = groups.find((group) => !extraGroup.test(group));
  if (wrong === undefined) return;
  throw new SetupError(
    `--groups ${wrong}: must begin with system:bootstrappers: and go on with a-z, 0-9, - and colons`,
  );
}

const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789";

function randomText(length: number): string {
  return Array.from({ length }, () => alphabet[randomInt(alphabet.length)]).join("");
}

function tokenSecret(token: BootstrapToken, flags: TokenCreateFlags, now: number): Secret {
  const ttlMs = parseDuration(flags.ttl);
  const end = new Date(now + ttlMs).toISOString().replace(/\.\d+Z$/, "Z");
  return {
    metadata: { namespace: tokenNamespace, name: tokenSecretName(token.id) },
    type: tokenSecretType,
    stringData: {
      "token-id": token.id,
      "token-secret": token.secret,
      "usage-bootstrap-authentication": "true",
      "usage-bootstrap-signing": "true",
      "auth-extra-groups": flags.groups.join(","),
      ...(ttlMs === 0 ? {} : { expiration: end }),
      ...(flags.description === undefined ? {} : { description: flags.description }),
    },
  };
}

/** Runs `work` with an administrator's client. */
async function withClient<T>(
  flags: TokenFlags,
  logger: Logger,
  work: (client: HttpClient) => Promise<T>,
): Promise<T> {
  const path = flags.kubeconfig ?? join(flags.stateDir, "control-plane", "admin.conf");
  if (flags.kubeconfig === undefined && !existsSync(path)) {
    throw new SetupError(
      `${path} does not exist: run this on the machine with "remora up", or give --kubeconfig`,
    );
  }
  const client = createHttpClient({
    kubeconfig: await loadKubeconfig(path),
    userAgent: `remora/${remoraVersion}`,
    clock: systemClock,
    logger,
  });
  try {
    return await work(client);
  } catch (error) {
    if (flags.kubeconfig !== undefined || !(error instanceof ApiUnavailableError)) throw error;
    throw new SetupError(`${errorMessage(error)}; is "remora up" running?`, { cause: error });
  } finally {
    await client.close();
  }
}

/** Where machines join and what the CA's key is, as the cluster publishes it. */
async function clusterAddress(
  client: HttpClient,
  signal: AbortSignal,
): Promise<{ readonly server: string; readonly hashes: readonly string[] }> {
  let content = "";
  try {
    const found = await getObject(client, CONFIG_MAPS, clusterInfo, { signal });
    content = found.data?.[clusterInfoKey] ?? "";
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
  const { server, caPEM } = await readClusterInfo(content);
  return { server, hashes: certificatesIn(caPEM).map(publicKeyHash) };
}

/** The command that makes a machine a node. */
export function joinCommand(
  server: string,
  { id, secret }: BootstrapToken,
  hashes: readonly string[],
): string {
  return `remora run --join ${server} --token ${id}.${secret} --ca-hash ${hashes.join(",")}`;
}

/** `remora token create`: prints the command that joins a machine. */
export async function createToken(
  flags: TokenCreateFlags,
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  parseDuration(flags.ttl);
  checkGroups(flags.groups);
  await withClient(flags, logger, async (client) => {
    const { server, hashes } = await clusterAddress(client, signal);
    let token: BootstrapToken;
    for (;;) {
      token = { id: randomText(6), secret: randomText(16) };
      try {
        const secret = tokenSecret(token, flags, systemClock.now());
        await createObject(client, SECRETS, secret, { signal });
        break;
      } catch (error) {
        // Somebody had the same six characters: drawn again.
        if (!isAlreadyExists(error)) throw error;
      }
    }
    process.stdout.write(`${joinCommand(server, token, hashes)}\n`);
    if (flags.printJoinCommand === true) return;
    const life = flags.ttl === "0" ? "until it is deleted" : `for ${flags.ttl}`;
    process.stderr.write(
      `Run this as root on the machine that joins. Token ${token.id} is good ${life} (remora token delete ${token.id}).\n` +
        "Where other people use that machine, write ID.SECRET into a file and give --token-file instead of --token.\n",
    );
  });
}

function remaining(expiresAt: number | undefined, now: number): string {
  if (expiresAt === undefined) return "<forever>";
  if (isExpiredToken({ expiresAt }, now)) return "<expired>";
  const minutes = Math.floor((expiresAt - now) / 60_000);
  return minutes >= 60 ? `${Math.floor(minutes / 60)}h${minutes % 60}m` : `${minutes}m`;
}

/** `remora token list`: all tokens, without their secrets. */
export async function listTokens(
  flags: TokenFlags,
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  await withClient(flags, logger, async (client) => {
    const { items } = await listObjects(client, SECRETS, {
      namespace: tokenNamespace,
      fieldSelector: `type=${tokenSecretType}`,
      signal,
    });
    const now = systemClock.now();
    const rows = items.map((item) => {
      const token = readTokenSecret(item.data ?? {});
      const usages = [
        ...(token.authenticates ? ["authentication"] : []),
        ...(token.signs ? ["signing"] : []),
      ];
      const described = token.description === "" ? "<none>" : token.description;
      return [token.id, remaining(token.expiresAt, now), usages.join(","), described];
    });
    const table = [["ID", "TTL", "USAGES", "DESCRIPTION"], ...rows];
    const widths = [0, 1, 2].map((at) => Math.max(...table.map((row) => (row[at] ?? "").length)));
    for (const row of table) {
      const cells = row.map((cell, at) => cell.padEnd(widths[at] ?? 0));
      process.stdout.write(`${cells.join("  ").trimEnd()}\n`);
    }
  });
}

/** `remora token delete`: takes ids, or whole tokens. */
export async function deleteTokens(
  ids: readonly string[],
  flags: TokenFlags,
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  const wanted = ids.map((text) => {
    const [, id] = /^([a-z0-9]{6})(\.[a-z0-9]{16})?$/.exec(text) ?? [];
    if (id === undefined)
      throw new SetupError(
        "a token's id is six characters of a-z and 0-9; remora token list shows them",
      );
    return id;
  });
  await withClient(flags, logger, async (client) => {
    for (const id of wanted) {
      const at = { namespace: tokenNamespace, name: tokenSecretName(id) };
      const found = await deleteObject(client, SECRETS, at, { signal });
      process.stdout.write(found ? `token ${id} deleted\n` : `token ${id} does not exist\n`);
    }
  });
}
