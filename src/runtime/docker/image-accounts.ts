import { isRuntimeFailure } from "../errors.ts";
import type { LinuxSecurityContext, LinuxUser } from "../types.ts";
import { asRecord, asString, isRecord, type JsonRecord, optionalString } from "../../lib/guard.ts";
import type { DockerClient } from "./client.ts";
import type { ProcessUser } from "./container-config.ts";
import { label, type Owner, ownerLabels } from "./labels.ts";
import { layerDirectories, readLayered } from "./layer-files.ts";
import { firstTarFile } from "./tar.ts";

/** The two files of an image that say who is who. Empty when the image has none. */
export interface Accounts {
  /** The image's USER. */
  readonly user: string;
  readonly passwd: string;
  readonly group: string;
}

interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

function passwdEntries(text: string): PasswdEntry[] {
  const entries: PasswdEntry[] = [];
  for (const line of text.split("\n")) {
    const [name = "", , uid, gid] = line.split(":");
    if (/^\d+$/.test(uid ?? "") && /^\d+$/.test(gid ?? "")) {
      entries.push({ name, uid: Number(uid), gid: Number(gid) });
    }
  }
  return entries;
}

function groupsOf(text: string, userName: string): number[] {
  const groups: number[] = [];
  for (const line of text.split("\n")) {
    const [, , gid, members = ""] = line.split(":");
    if (/^\d+$/.test(gid ?? "") && members.trim().split(",").includes(userName)) {
      groups.push(Number(gid));
    }
  }
  return groups;
}

/** True when a process cannot get the right groups without the image's files. */
export function needsAccounts(security: LinuxSecurityContext): boolean {
  return security.runAsGroup !== undefined || security.supplementalGroupsPolicy === "Strict";
}

function groupID(text: string, name: string): number | undefined {
  if (/^\d+$/.test(name)) return Number(name);
  const line = text.split("\n").find((candidate) => candidate.startsWith(`${name}:`));
  const gid = line?.split(":")[2] ?? "";
  return /^\d+$/.test(gid) ? Number(gid) : undefined;
}

/**
 * As whom a process starts (KEP-3619): a primary group of the pod, of the image's USER, of its passwd, in this order;
 * beside it the image's memberships (Merge only) and the pod's groups. Undefined for a USER that the image does not
 * know: the engine then refuses the start.
 */
export function linuxUser(
  security: LinuxSecurityContext,
  accounts: Accounts,
): LinuxUser | undefined {
  const [imageUser = "", imageGroup = ""] = accounts.user.split(":");
  const asked = security.runAsUser === undefined ? imageUser : String(security.runAsUser);
  const name = asked === "" ? "0" : asked;
  const numeric = /^\d+$/.test(name);
  const entry = passwdEntries(accounts.passwd).find((candidate) =>
    numeric ? candidate.uid === Number(name) : candidate.name === name,
  );
  const uid = numeric ? Number(name) : entry?.uid;
  const ownGroup =
    security.runAsUser === undefined && imageGroup !== ""
      ? groupID(accounts.group, imageGroup)
      : (entry?.gid ?? 0);
  const gid = security.runAsGroup ?? ownGroup;
  if (uid === undefined || gid === undefined) return undefined;
  const merged =
    security.supplementalGroupsPolicy === "Merge" && entry !== undefined
      ? groupsOf(accounts.group, entry.name)
      : [];
  const supplementalGroups = [...new Set([gid, ...merged, ...security.supplementalGroups])];
  return { uid, gid, supplementalGroups };
}

/**
 * User and groups as the engine is told. It merges the image's groups exactly when no gid is given, so Strict always
 * gives one, and Merge with a gid adds the image's groups itself.
 *
 * @param accounts Undefined where they could not be read and are not needed.
 */
export function resolveUser(
  security: LinuxSecurityContext,
  accounts: Accounts | undefined,
): ProcessUser {
  const groups = security.supplementalGroups.map(String);
  const runAsUser = security.runAsUser === undefined ? "" : String(security.runAsUser);
  if (accounts === undefined) return { user: runAsUser, groups };
  const identity = linuxUser(security, accounts);
  const [imageUser = "", imageGroup = ""] = accounts.user.split(":");
  const needsGroup = needsAccounts(security) || (runAsUser === "" && imageGroup !== "");
  if (!needsGroup) return { user: runAsUser, groups, identity };
  // The name is kept where there is one: several may have the same uid, and each its own home.
  const name = runAsUser === "" ? imageUser || "0" : runAsUser;
  if (identity === undefined) {
    return { user: `${name}:${security.runAsGroup ?? imageGroup}`.replace(/:$/, ""), groups };
  }
  const { gid, supplementalGroups } = identity;
  const others = supplementalGroups.filter(
    (group) => group !== gid || security.supplementalGroups.includes(group),
  );
  return { user: `${name}:${gid}`, groups: others.map(String), identity };
}

const cacheLimit = 256;

function keep(cache: Map<string, Accounts>, imageID: string, accounts: Accounts): Accounts {
  const oldest = cache.keys().next();
  if (cache.size >= cacheLimit && oldest.done === false) cache.delete(oldest.value);
  cache.set(imageID, accounts);
  return accounts;
}

/** The image's USER; empty for none. */
function imageUserOf(image: JsonRecord): string {
  const config = image["Config"];
  return isRecord(config) ? (optionalString(config["User"]) ?? "") : "";
}

/** What somebody else waits for too; gives up on its own when `signal` aborts. */
async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => {
    reject(signal.reason);
  };
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** Reads accounts out of images, through a container that is never started. Kept by image id: images do not change. */
export class ImageAccounts {
  readonly #client: DockerClient;
  readonly #owner: Owner;
  readonly #known = new Map<string, Accounts>();
  readonly #glanced = new Map<string, Accounts>();
  readonly #reading = new Map<string, Promise<Accounts>>();

  constructor(client: DockerClient, owner: Owner) {
    this.#client = client;
    this.#owner = owner;
  }

  async read(imageID: string, signal: AbortSignal): Promise<Accounts> {
    const known = this.#known.get(imageID);
    if (known !== undefined) return known;
    const reading = this.#reading.get(imageID);
    if (reading !== undefined) {
      try {
        return await untilAborted(reading, signal);
      } catch {
        // The one who began may have given up; that is no reason for this one to.
        signal.throwIfAborted();
      }
    }
    const begun = this.#read(imageID, signal);
    this.#reading.set(imageID, begun);
    try {
      return keep(this.#known, imageID, await begun);
    } finally {
      if (this.#reading.get(imageID) === begun) this.#reading.delete(imageID);
    }
  }

  /**
   * The same without a container: from the image's layers on this machine, in a few milliseconds instead of hundreds.
   * Undefined where there are none. Good enough to tell who runs, not to decide it.
   */
  async glance(imageID: string, signal: AbortSignal): Promise<Accounts | undefined> {
    const known = this.#known.get(imageID) ?? this.#glanced.get(imageID);
    if (known !== undefined) return known;
    const image = await this.#inspect(imageID, signal);
    const layers = layerDirectories(image);
    if (layers === undefined) return undefined;
    const passwd = await readLayered(layers, "etc/passwd");
    const group = await readLayered(layers, "etc/group");
    if (passwd === undefined || group === undefined) return undefined;
    return keep(this.#glanced, imageID, { user: imageUserOf(image), passwd, group });
  }

  async #inspect(imageID: string, signal: AbortSignal): Promise<JsonRecord> {
    const path = `/images/${imageID}/json`;
    const call = { op: "inspect image", method: "GET", path } as const;
    return asRecord(await this.#client.call(call, signal), "image");
  }

  async #read(imageID: string, signal: AbortSignal): Promise<Accounts> {
    const user = imageUserOf(await this.#inspect(imageID, signal));
    const created = asRecord(
      await this.#client.call(
        {
          op: "create container",
          method: "POST",
          path: "/containers/create",
          body: {
            Image: imageID,
            // Never run; it only keeps images without a command from being refused.
            Entrypoint: ["/"],
            NetworkDisabled: true,
            Labels: { ...ownerLabels(this.#owner), [label.type]: "accounts" },
            HostConfig: { NetworkMode: "none" },
          },
          timeoutMs: 120_000,
        },
        signal,
      ),
      "created",
    );
    const id = asString(created["Id"], "created.Id");
    try {
      const [passwd, group] = await Promise.all([
        this.#file(id, "/etc/passwd", signal),
        this.#file(id, "/etc/group", signal),
      ]);
      return { user, passwd, group };
    } finally {
      // Also after an abort: what is left over is swept at the next connect.
      await this.#client
        .call(
          {
            op: "remove container",
            method: "DELETE",
            path: `/containers/${id}`,
            query: { force: 1, v: 1 },
          },
          AbortSignal.timeout(10_000),
        )
        .catch(() => undefined);
    }
  }

  async #file(id: string, path: string, signal: AbortSignal): Promise<string> {
    try {
      const archive = await this.#client.call(
        {
          op: "read file of image",
          method: "GET",
          path: `/containers/${id}/archive`,
          query: { path },
        },
        signal,
      );
      return Buffer.isBuffer(archive) ? (firstTarFile(archive)?.toString("utf8") ?? "") : "";
    } catch (error) {
      if (isRuntimeFailure(error, "NotFound")) return "";
      throw error;
    }
  }
}
