import { nameservers, pointsToResolved, resolvedFile } from "../dns/host-servers.ts";
import { readIfThere } from "../lib/read-if-there.ts";

/**
 * The file that says where the host finds names: systemd-resolved's own where `path` only names its stub, which pods
 * cannot reach (what kubeadm writes as `resolvConf`).
 */
export async function hostResolvConf(
  path: string,
  read: (path: string) => Promise<string | undefined> = readIfThere,
): Promise<string> {
  if (path === "" || !pointsToResolved((await read(path)) ?? "")) return path;
  return nameservers((await read(resolvedFile)) ?? "").length > 0 ? resolvedFile : path;
}
