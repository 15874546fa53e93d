import { readFile } from "node:fs/promises";

import { nameservers, pointsToResolved, resolvedFile } from "../dns/host-servers.ts";
import { errorCode } from "../lib/errors.ts";

async function readIfThere(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return "";
    throw error;
  }
}

/**
 * The file that says where the host finds names: systemd-resolved's own where `path` only names its stub, which pods
 * cannot reach (what kubeadm writes as `resolvConf`).
 */
export async function hostResolvConf(
  path: string,
  read: (path: string) => Promise<string> = readIfThere,
): Promise<string> {
  if (path === "" || !pointsToResolved(await read(path))) return path;
  return nameservers(await read(resolvedFile)).length > 0 ? resolvedFile : path;
}
