import { readFile } from "node:fs/promises";

import { errorCode, errorMessage, RemoraError } from "../../lib/errors.ts";
import { parseResolvConf, type ResolvConf, searchLimitsTrouble } from "../spec/dns.ts";

/** The node's own resolv.conf cannot be read: pods would be left without names, so none is made before it can. */
export class HostResolvConfError extends RemoraError {
  readonly code = "REMORA_HOST_RESOLV_CONF";
}

/** What the kubelet's event says, which is what Go's open says. */
function openText(path: string, error: unknown): string {
  switch (errorCode(error) ?? "") {
    case "ENOENT":
      return `open ${path}: no such file or directory`;
    case "EACCES":
      return `open ${path}: permission denied`;
    case "EISDIR":
      return `read ${path}: is a directory`;
    default:
      return errorMessage(error);
  }
}

/**
 * Where the node finds names.
 *
 * @param path KubeletConfiguration `resolvConf`; "" tells that pods get nothing from the node.
 * @throws {HostResolvConfError} in the kubelet's words.
 */
export async function readHostResolvConf(path: string): Promise<ResolvConf | undefined> {
  if (path === "") return undefined;
  try {
    return parseResolvConf(await readFile(path, "utf8"));
  } catch (error) {
    throw new HostResolvConfError(openText(path, error), { cause: error });
  }
}

/** What the kubelet's event `CheckLimitsForResolvConf` says of the node's own file; undefined when nothing. */
export async function resolvConfTrouble(
  path: string,
  clusterDomain: string,
): Promise<string | undefined> {
  try {
    const conf = await readHostResolvConf(path);
    return conf === undefined ? undefined : searchLimitsTrouble(conf, path, clusterDomain);
  } catch (error) {
    return errorMessage(error);
  }
}
