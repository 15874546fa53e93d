import { isRuntimeFailure } from "../errors.ts";
import type { LinuxSecurityContext } from "../types.ts";
import { asRecord, asString } from "../../lib/guard.ts";
import type { DockerClient } from "./client.ts";
import type { ProcessUser } from "./container-config.ts";
import { label, type Owner, ownerLabels } from "./labels.ts";
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

/** True when the image's files are needed to say which groups a process gets. */
export function needsAccounts(security: LinuxSecurityContext): boolean {
  return security.runAsGroup !== undefined || security.supplementalGroupsPolicy === "Strict";
}

/**
 * User and groups of a process (KEP-3619). The engine merges the image's groups exactly when no gid is given, so:
 * Strict always gives one, and Merge with a gid adds the image's groups itself.
 */
export function resolveUser(
  security: LinuxSecurityContext,
  accounts: Accounts | undefined,
): ProcessUser {
  const groups = security.supplementalGroups.map(String);
  if (accounts === undefined) {
    return { user: security.runAsUser === undefined ? "" : String(security.runAsUser), groups };
  }
  const [imageUser = "", imageGroup] = accounts.user.split(":");
  const name = security.runAsUser === undefined ? imageUser : String(security.runAsUser);
  const wanted = name === "" ? "0" : name;
  const entry = passwdEntries(accounts.passwd).find((candidate) =>
    /^\d+$/.test(wanted) ? candidate.uid === Number(wanted) : candidate.name === wanted,
  );
  const ownGroup =
    security.runAsUser === undefined && imageGroup !== undefined && imageGroup !== ""
      ? imageGroup
      : String(entry?.gid ?? 0);
  const gid = security.runAsGroup === undefined ? ownGroup : String(security.runAsGroup);
  const merged =
    security.supplementalGroupsPolicy === "Merge" && entry !== undefined
      ? groupsOf(accounts.group, entry.name).map(String)
      : [];
  return { user: `${wanted}:${gid}`, groups: [...new Set([...groups, ...merged])] };
}

const cacheLimit = 256;

/** Reads accounts out of images, through a container that is never started. Kept by image id: images do not change. */
export class ImageAccounts {
  readonly #client: DockerClient;
  readonly #owner: Owner;
  readonly #known = new Map<string, Accounts>();

  constructor(client: DockerClient, owner: Owner) {
    this.#client = client;
    this.#owner = owner;
  }

  async read(imageID: string, signal: AbortSignal): Promise<Accounts> {
    const known = this.#known.get(imageID);
    if (known !== undefined) return known;
    const accounts = await this.#read(imageID, signal);
    const oldest = this.#known.keys().next();
    if (this.#known.size >= cacheLimit && oldest.done === false) this.#known.delete(oldest.value);
    this.#known.set(imageID, accounts);
    return accounts;
  }

  async #read(imageID: string, signal: AbortSignal): Promise<Accounts> {
    const image = asRecord(
      await this.#client.call(
        {
          op: "inspect image",
          method: "GET",
          path: `/images/${imageID}/json`,
        },
        signal,
      ),
      "image",
    );
    const config = asRecord(image["Config"] ?? {}, "image.Config");
    const user = typeof config["User"] === "string" ? config["User"] : "";
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
