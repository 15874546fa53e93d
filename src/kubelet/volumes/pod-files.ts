import { writeFile } from "node:fs/promises";

import { errorCode } from "../../lib/errors.ts";
import type { Container } from "../../api/types.gen.ts";
import type { Mount } from "../../runtime/types.ts";
import { isHostNetwork } from "../spec/containers.ts";
import { readHostResolvConf } from "../node/host-resolv-conf.ts";
import { formatResolvConf, podResolvConf } from "../spec/dns.ts";
import { hostNetworkHostsFile, managedHostsFile } from "../spec/hosts-file.ts";
import { containerPath } from "../spec/mounts.ts";
import { podHostname } from "../spec/pod-name.ts";
import type { AssignedPod } from "../types.ts";
import type { PodPaths } from "./pod-paths.ts";
import { readIfThere } from "../../lib/read-if-there.ts";

export interface PodFilesInput {
  readonly podIPs: readonly string[];
  readonly nodeName: string;
  readonly resolvConf: string;
  readonly cluster: {
    readonly dns: readonly string[];
    readonly domain: string;
    readonly nodeIPs?: readonly string[];
  };
}

/**
 * Rewrites in place: the file is bound into running containers, which would keep an old inode. Nothing is forced to the
 * disk, which would cost every start two waits for it per file: after a power cut no container reads the file before
 * it was compared and written again.
 */
async function writeInPlace(path: string, text: string): Promise<void> {
  try {
    // Everybody in the container reads it.
    await writeFile(path, text, { mode: 0o644, flag: "wx" });
  } catch (error) {
    if (errorCode(error) !== "EEXIST") throw error;
    if ((await readIfThere(path)) !== text) await writeFile(path, text);
  }
}

/**
 * Writes the pod's /etc/hosts, /etc/resolv.conf and /etc/hostname; returns the warnings to raise as events. The
 * engine writes its own for every container, also when the network is shared, so ours are bound over them.
 */
export async function writePodFiles(
  pod: AssignedPod,
  paths: PodPaths,
  input: PodFilesInput,
): Promise<readonly { readonly reason: string; readonly message: string }[]> {
  const host = isHostNetwork(pod);
  const names = podHostname(pod, input.cluster.domain);
  const aliases = pod.spec?.hostAliases ?? [];
  const hosts = host
    ? hostNetworkHostsFile((await readIfThere("/etc/hosts")) ?? "", aliases)
    : managedHostsFile({ ips: input.podIPs, hostname: names.short, domain: names.domain, aliases });
  const ofHost = await readHostResolvConf(input.resolvConf);
  const resolv = podResolvConf(pod, ofHost, input.cluster);
  // On the node's network a pod has the node's own host name, which need not be the name of its Node.
  const kernel = host
    ? ((await readIfThere("/proc/sys/kernel/hostname")) ?? "").trim()
    : names.hostname;
  await Promise.all([
    writeInPlace(paths.etcHosts, hosts),
    writeInPlace(paths.resolvConf, formatResolvConf(resolv)),
    writeInPlace(paths.hostname, `${kernel === "" ? input.nodeName : kernel}\n`),
  ]);
  return resolv.warnings;
}

/** The binds of these files, except where the container mounts something of its own. */
export function podFileMounts(container: Container, paths: PodPaths): readonly Mount[] {
  const taken = new Set(
    (container.volumeMounts ?? []).map(({ mountPath }) => containerPath(mountPath)),
  );
  const binds: readonly (readonly [string, string])[] = [
    [paths.etcHosts, "/etc/hosts"],
    [paths.resolvConf, "/etc/resolv.conf"],
    [paths.hostname, "/etc/hostname"],
  ];
  return binds
    .filter(([, target]) => !taken.has(target))
    .map(([hostPath, target]) => ({
      hostPath,
      containerPath: target,
      readOnly: false,
      propagation: "private",
    }));
}
