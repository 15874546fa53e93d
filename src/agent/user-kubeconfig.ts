import { chown, mkdir, realpath, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";

import {
  mergeKubeconfig,
  removeFromKubeconfig,
  summarizeKubeconfig,
} from "../api/kubeconfig-write.ts";
import { writeFileAtomic } from "../lib/atomic-file.ts";
import { errorCode, errorMessage, SetupError } from "../lib/errors.ts";
import { readIfThere } from "../lib/read-if-there.ts";

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

/** Our API server is on this machine; an entry of our name that leads elsewhere is somebody else's. */
function isOurServer(server: string): boolean {
  if (!URL.canParse(server)) return false;
  const { hostname } = new URL(server);
  return hostname === "localhost" || hostname === "[::1]" || hostname.startsWith("127.");
}

/** Replaces the text of the file behind `path`; links, owner and a directory that is there stay as they are. */
async function replaceText(
  path: string,
  text: string,
  user: Pick<InvokingUser, "uid" | "gid">,
): Promise<void> {
  const made = await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  if (made !== undefined) await chown(made, user.uid, user.gid);
  const present = await realpath(path).catch((error: unknown) => {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  });
  const owner = present === undefined ? user : await stat(present);
  const target = present ?? path;
  await writeFileAtomic(target, text, 0o600);
  await chown(target, owner.uid, owner.gid);
}

/**
 * Puts our context into the user's kubeconfig. Everything else in the file stays, its owner too; the current context is
 * set only where none was.
 *
 * @returns the file's current context.
 * @throws {SetupError} when the file cannot be read as a kubeconfig, or has an entry of our name for another cluster; it
 *   is left alone then.
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
): Promise<string> {
  try {
    const existing = await readIfThere(path);
    const before = await summarizeKubeconfig(existing ?? "", contextName);
    if (before.server !== undefined && !isOurServer(before.server)) {
      throw new SetupError(
        `its cluster "${contextName}" is another one (${before.server}); rename that entry to get a context for this cluster`,
      );
    }
    const text = await mergeKubeconfig(existing, { name: contextName, ...cluster });
    if (text !== existing) await replaceText(path, text, user);
    return (await summarizeKubeconfig(text, contextName)).currentContext;
  } catch (error) {
    throw new SetupError(`${path} was left alone: ${errorMessage(error)}`, { cause: error });
  }
}

/**
 * Takes our context out of the user's kubeconfig again, and removes a file that then holds nothing. Returns whether there
 * was one.
 *
 * @throws {SetupError} when the file cannot be read as a kubeconfig; it is left alone then.
 */
export async function removeUserKubeconfig(
  path: string,
  user: Pick<InvokingUser, "uid" | "gid">,
): Promise<boolean> {
  try {
    const existing = await readIfThere(path);
    if (existing === undefined || !existing.includes(contextName)) return false;
    const { server } = await summarizeKubeconfig(existing, contextName);
    if (server === undefined || !isOurServer(server)) return false;
    const text = await removeFromKubeconfig(existing, contextName);
    if ((await summarizeKubeconfig(text, contextName)).empty) await rm(path);
    else await replaceText(path, text, user);
    return true;
  } catch (error) {
    throw new SetupError(`${path} was left alone: ${errorMessage(error)}`, { cause: error });
  }
}

/** Whether a file has our context. False for one that cannot be read as a kubeconfig: it is nothing that we wrote. */
export async function hasOurContext(path: string): Promise<boolean> {
  const text = await readIfThere(path).catch(() => undefined);
  if (text === undefined || !text.includes(contextName)) return false;
  const found = await summarizeKubeconfig(text, contextName).catch(() => undefined);
  return found?.server !== undefined && isOurServer(found.server);
}
