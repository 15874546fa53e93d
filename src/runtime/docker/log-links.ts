import { lstat, mkdir, readdir, readlink, rename, rm, rmdir, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";

import { errorCode } from "../../lib/errors.ts";
import { label, type Labels } from "./labels.ts";

/** Directories that readers of Kubernetes logs know. */
export interface LogDirs {
  /** /var/log/pods */
  readonly podLogsDir: string;
  /** /var/log/containers */
  readonly containerLogsDir: string;
}

interface LinkPaths {
  /**
   * podLogsDir/<ns>_<pod>_<uid>/<ctr>/<attempt>.log; undefined when the pod's names are too long for a file name. (The
   * kubelet cannot run such a pod.)
   */
  readonly pod: string | undefined;
  /** containerLogsDir/<pod>_<ns>_<ctr>-<id>.log, pointing at `pod` */
  readonly container: string;
}

const maxNameBytes = 255;
const suffix = ".log";

function linkPaths(id: string, labels: Labels, dirs: LogDirs): LinkPaths | undefined {
  const logPath = labels[label.logPath];
  if (logPath === undefined || logPath === "") return undefined;
  const name = `${labels[label.podName]}_${labels[label.podNamespace]}_${labels[label.containerName]}-${id}`;
  const fits = logPath.split("/").every((part) => Buffer.byteLength(part) <= maxNameBytes);
  return {
    pod: fits ? join(dirs.podLogsDir, logPath) : undefined,
    // Cut as the kubelet cuts it.
    container: join(
      dirs.containerLogsDir,
      `${name.slice(0, maxNameBytes - suffix.length)}${suffix}`,
    ),
  };
}

/** Links `path` to `target` unless something is there already, which is the answer. */
async function isTaken(path: string, target: string): Promise<boolean> {
  try {
    await symlink(target, path);
    return false;
  } catch (error) {
    if (errorCode(error) === "EEXIST") return true;
    throw error;
  }
}

async function ensureLink(path: string, target: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  if (!(await isTaken(path, target))) return;
  try {
    if ((await readlink(path)) === target) return;
  } catch (error) {
    // EINVAL: a plain file of an earlier engine; it is replaced.
    if (errorCode(error) !== "EINVAL") throw error;
  }
  // Through a rename, so that a reader never sees the name missing. Not longer than the name, which may be of full length.
  const temporary = `${path.slice(0, -suffix.length)}.new`;
  await rm(temporary, { force: true });
  await symlink(target, temporary);
  await rename(temporary, path);
}

/** Makes both links to the engine's log file; does nothing when they are right. */
export async function ensureLogLinks(
  container: { readonly id: string; readonly labels: Labels; readonly logPath: string },
  dirs: LogDirs,
): Promise<void> {
  const paths = linkPaths(container.id, container.labels, dirs);
  if (paths === undefined || container.logPath === "") return;
  if (paths.pod !== undefined) await ensureLink(paths.pod, container.logPath);
  await ensureLink(paths.container, paths.pod ?? container.logPath);
}

async function removeEmpty(directory: string): Promise<boolean> {
  try {
    await rmdir(directory);
    return true;
  } catch {
    // Not empty, or gone already.
    return false;
  }
}

/** Removes a container's links, and the directories of its pod when they were the last in them. */
export async function removeLogLinks(id: string, labels: Labels, dirs: LogDirs): Promise<void> {
  const paths = linkPaths(id, labels, dirs);
  if (paths === undefined) return;
  await rm(paths.container, { force: true });
  if (paths.pod === undefined) return;
  await rm(paths.pod, { force: true });
  // Two levels, never podLogsDir itself.
  const containerDir = dirname(paths.pod);
  if (await removeEmpty(containerDir)) {
    const podDir = dirname(containerDir);
    if (podDir !== dirs.podLogsDir && podDir.startsWith(`${dirs.podLogsDir}/`)) {
      await removeEmpty(podDir);
    }
  }
}

/**
 * Removes links in containerLogsDir that point into podLogsDir, or at an engine's log, at nothing: their container was
 * removed while nobody looked.
 */
export async function sweepLogLinks(dirs: LogDirs): Promise<void> {
  let names: string[];
  try {
    names = await readdir(dirs.containerLogsDir);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw error;
  }
  for (const name of names) {
    // A name of full length may have lost its id.
    if (!/-[0-9a-f]{64}\.log$/.test(name) && Buffer.byteLength(name) !== maxNameBytes) continue;
    const path = join(dirs.containerLogsDir, name);
    const target = await readlink(path).catch(() => "");
    const between = target.startsWith(`${dirs.podLogsDir}/`);
    if (!between && !/\/([0-9a-f]{64})\/\1-json\.log$/.test(target)) continue;
    const logFile = between ? await readlink(target).catch(() => "") : target;
    if (logFile !== "" && (await exists(logFile))) continue;
    await rm(path, { force: true });
    if (between) await rm(target, { force: true });
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch {
    return false;
  }
}
