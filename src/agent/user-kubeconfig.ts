import { chown, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

import { mergeKubeconfig, removeFromKubeconfig } from "../api/kubeconfig-write.ts";
import { writeFileAtomic } from "../lib/atomic-file.ts";
import { errorCode, errorMessage, SetupError } from "../lib/errors.ts";

/** The person who typed the command, behind sudo if need be. */
export interface InvokingUser {
  readonly home: string;
  readonly uid: number;
  readonly gid: number;
}

/** Reads home and ids of `SUDO_USER` (or of root) from passwd text. */
export function invokingUser(
  passwd: string,
  environment: Readonly<Record<string, string | undefined>>,
): InvokingUser {
  const name = environment["SUDO_USER"] ?? "root";
  const fields = passwd
    .split("\n")
    .find((line) => line.startsWith(`${name}:`))
    ?.split(":");
  const [, , uid, gid, , home] = fields ?? [];
  if (name === "root" || home === undefined || home === "") {
    return { home: environment["HOME"] ?? "/root", uid: 0, gid: 0 };
  }
  return { home, uid: Number(uid), gid: Number(gid) };
}

/** Name of our cluster, user and context in people's kubeconfig. */
export const contextName = "remora";

/** Path of the file kubectl reads for that user: the first entry of KUBECONFIG, or ~/.kube/config. */
export function kubeconfigPath(
  user: InvokingUser,
  environment: Readonly<Record<string, string | undefined>>,
): string {
  const first = environment["KUBECONFIG"]?.split(":")[0];
  return first === undefined || first === "" ? join(user.home, ".kube", "config") : first;
}

async function readIfPresent(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Puts our context into the user's kubeconfig. Everything else in the file stays; the current context is set only where
 * none was.
 *
 * @throws {SetupError} when the file cannot be read as a kubeconfig; it is left alone then.
 */
export async function writeUserKubeconfig(
  path: string,
  user: InvokingUser,
  cluster: {
    readonly server: string;
    readonly caPEM: string;
    readonly clientCertPEM: string;
    readonly clientKeyPEM: string;
  },
): Promise<void> {
  const directory = dirname(path);
  const existing = await readIfPresent(path);
  let text: string;
  try {
    text = await mergeKubeconfig(existing, { name: contextName, ...cluster });
  } catch (error) {
    throw new SetupError(`${path} was left alone: ${errorMessage(error)}`, { cause: error });
  }
  if (text === existing) return;
  const made = await mkdir(directory, { recursive: true, mode: 0o700 });
  if (made !== undefined) await chown(made, user.uid, user.gid);
  await writeFileAtomic(path, text, 0o600);
  await chown(path, user.uid, user.gid);
}

/** Takes our context out of the user's kubeconfig again. Returns whether there was one. */
export async function removeUserKubeconfig(path: string): Promise<boolean> {
  const existing = await readIfPresent(path);
  if (existing === undefined || !existing.includes(contextName)) return false;
  const text = await removeFromKubeconfig(existing, contextName);
  if (text === existing) return false;
  // Overwritten in place of a rename: owner and mode of somebody else's file stay as they are.
  await writeFile(path, text);
  return true;
}
