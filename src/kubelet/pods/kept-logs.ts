import { constants, copyFile, link, mkdir, readlink, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import type { AgentConfig } from "../../config/types.ts";
import { errorCode, errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { namesIn } from "../../lib/names-in.ts";
import type { ContainerRecord } from "../../runtime/types.ts";
import { podLogPath } from "../spec/container-config.ts";
import type { AssignedPod } from "../types.ts";
import { podPaths } from "../volumes/pod-paths.ts";

async function inodeOf(path: string): Promise<bigint | undefined> {
  try {
    return (await stat(path, { bigint: true })).ino;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** The log and its rotated siblings. */
async function siblings(path: string): Promise<readonly string[]> {
  const base = basename(path);
  const names = await namesIn(dirname(path));
  return names
    .filter((name) => name === base || name.startsWith(`${base}.`))
    .map((name) => join(dirname(path), name));
}

async function linkAnew(source: string, target: string): Promise<void> {
  const [wanted, known] = await Promise.all([inodeOf(source), inodeOf(target)]);
  if (wanted === undefined || wanted === known) return;
  await rm(target, { force: true });
  try {
    await link(source, target);
  } catch (error) {
    // Removed or rotated a moment ago: the next look will see.
    if (errorCode(error) !== "ENOENT" && errorCode(error) !== "EEXIST") throw error;
  }
}

/** Gives the files of a log their second names below `kept`, as far as they lack them. */
async function linkAll(path: string, kept: string): Promise<void> {
  const found = await siblings(path);
  if (found.length === 0) return;
  await mkdir(dirname(kept), { recursive: true, mode: 0o750 });
  const targets = new Map(found.map((file) => [kept + file.slice(path.length), file]));
  for (const [target, file] of targets) await linkAnew(file, target);
  for (const old of await siblings(kept)) if (!targets.has(old)) await rm(old, { force: true });
}

/** Copies the newest file of a log, which nobody writes to any more; does nothing when that was done. */
async function copyNewest(path: string, kept: string): Promise<void> {
  if ((await inodeOf(kept)) !== undefined || (await inodeOf(path)) === undefined) return;
  await mkdir(dirname(kept), { recursive: true, mode: 0o750 });
  const unfinished = `${kept}.tmp`;
  await copyFile(path, unfinished, constants.COPYFILE_FICLONE);
  await rename(unfinished, kept);
}

export interface KeptLogsOptions {
  readonly config: Pick<AgentConfig, "podLogsDir" | "rootDir">;
  readonly logger: Logger;
}

/**
 * Second names (hard links) for the logs of containers, in the pod's own directory: the engine deletes a log together
 * with its container, and that may be done by anybody (`docker system prune`). They cost no disk as long as the
 * container is there. Where the engine's directory is another mount, the newest file is copied when a container ends.
 */
export class KeptLogs {
  readonly #options: KeptLogsOptions;
  #copies = false;

  constructor(options: KeptLogsOptions) {
    this.#options = options;
  }

  /** Changes when there is something new to keep: another container, or a file begun by rotation. */
  async signature(pod: AssignedPod, records: readonly ContainerRecord[]): Promise<string> {
    const { podLogsDir } = this.#options.config;
    const inodes = await Promise.all(
      records.map(({ attempt, name }) =>
        inodeOf(join(podLogsDir, podLogPath(pod, name, attempt))).catch(() => undefined),
      ),
    );
    return records.map(({ id }, at) => `${id}=${inodes[at] ?? ""}`).join(" ");
  }

  /** Keeps what containers have logged so far; what is rotated later needs another call. Never rejects for that. */
  async keep(pod: AssignedPod, records: readonly ContainerRecord[]): Promise<void> {
    const { config, logger } = this.#options;
    for (const record of records) {
      const { attempt, id, name } = record;
      const shown = join(config.podLogsDir, podLogPath(pod, name, attempt));
      // What a link shows is the engine's file; anything else was put there by somebody else.
      const path = await readlink(shown).catch(() => "");
      if (path === "") continue;
      try {
        await this.#keepOne(path, this.#path(pod.metadata.uid, name, id), record);
      } catch (error) {
        logger.log("warn", "the log of a container is lost if somebody removes that", {
          podUID: pod.metadata.uid,
          container: name,
          error: errorMessage(error),
        });
      }
    }
  }

  async #keepOne(path: string, kept: string, { state }: ContainerRecord): Promise<void> {
    if (!this.#copies) {
      try {
        await linkAll(path, kept);
        return;
      } catch (error) {
        if (!["EXDEV", "EPERM", "ENOTSUP"].includes(errorCode(error) ?? "")) throw error;
        this.#copies = true;
      }
    }
    if (state.kind === "exited") await copyNewest(path, kept);
  }

  /** Where the log of a container is that the runtime does not have any more; undefined when it was not kept. */
  async find(uid: string, container: string, id: string): Promise<string | undefined> {
    const path = this.#path(uid, container, id);
    return (await inodeOf(path)) === undefined ? undefined : path;
  }

  /** Lets go of the logs of all containers of that name but these. */
  async drop(uid: string, container: string, except: ReadonlySet<string>): Promise<void> {
    const directory = dirname(this.#path(uid, container, ""));
    for (const name of await namesIn(directory)) {
      const [, id] = /^(.+?)\.log(?:\..+)?$/.exec(name) ?? [];
      if (id !== undefined && !except.has(id)) await rm(join(directory, name), { force: true });
    }
  }

  #path(uid: string, container: string, id: string): string {
    return join(podPaths(this.#options.config.rootDir, uid).containers, container, `${id}.log`);
  }
}
