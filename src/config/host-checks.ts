import { access, readdir, stat } from "node:fs/promises";

import { errorCode } from "../lib/errors.ts";
import { readIfThere } from "../lib/read-if-there.ts";
import { isCRISocket, isSet } from "./agent-members.ts";
import type { Configuration } from "./configuration.ts";
import type { Remark } from "./decode.ts";

/** Where the facts about this machine are; other places in tests only. */
export interface HostPlaces {
  readonly swaps: string;
  /** There on machines with cgroup v2 only. */
  readonly cgroupControllers: string;
}

const thisHost: HostPlaces = {
  swaps: "/proc/swaps",
  cgroupControllers: "/sys/fs/cgroup/cgroup.controllers",
};

/** Where kube-proxy finds its kubeconfig in the pods that kubeadm makes for it. */
const kubeadmProxyKubeconfig = "/var/lib/kube-proxy/kubeconfig.conf";

/** The file with the proxy's credentials; empty: it has none of its own. */
export async function proxyKubeconfigOf({ proxy }: Configuration): Promise<string> {
  const path = proxy.clientConnection.kubeconfig;
  return path === kubeadmProxyKubeconfig && !(await exists(path)) ? "" : path;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** Manifests below a static pod path, which is a directory or one file; names with a dot in front do not count. */
async function manifests(path: string): Promise<readonly string[]> {
  try {
    if (!(await stat(path)).isDirectory()) return [path];
    return (await readdir(path)).filter((name) => !name.startsWith("."));
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  }
}

/**
 * What this machine has to say about a configuration: its swap, its cgroups, the files that the configuration names.
 */
export async function hostRemarks(
  configuration: Configuration,
  places: HostPlaces = thisHost,
): Promise<readonly Remark[]> {
  const { kubelet, proxy } = configuration;
  const out: Remark[] = [];
  const remark = (
    severity: Remark["severity"],
    kind: "KubeletConfiguration" | "KubeProxyConfiguration",
    path: string,
    text: string,
  ): void => {
    const origin = configuration.settings[kind].get(path)?.origin;
    out.push({ severity, kind, path, origin, text });
  };
  if (kubelet.failCgroupV1 && !(await exists(places.cgroupControllers))) {
    remark(
      "error",
      "KubeletConfiguration",
      "failCgroupV1",
      "kubelet is configured to not run on a host using cgroup v1",
    );
  }
  const swaps = kubelet.failSwapOn ? ((await readIfThere(places.swaps)) ?? "") : "";
  if (swaps.trim().split("\n").length > 1) {
    remark(
      "error",
      "KubeletConfiguration",
      "failSwapOn",
      "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false",
    );
  }
  const found = kubelet.staticPodPath === "" ? [] : await manifests(kubelet.staticPodPath);
  if (found.length > 0) {
    remark(
      "error",
      "KubeletConfiguration",
      "staticPodPath",
      `${kubelet.staticPodPath} holds ${found.slice(0, 3).join(", ")}: static pods are not run; move them away`,
    );
  }
  if (
    isSet(configuration, "KubeletConfiguration", "containerRuntimeEndpoint") &&
    isCRISocket(kubelet.containerRuntimeEndpoint)
  ) {
    remark(
      "ignored",
      "KubeletConfiguration",
      "containerRuntimeEndpoint",
      "has no effect: it names a CRI engine, and Remora uses the Docker Engine; say --docker-socket for one that is elsewhere",
    );
  }
  if (proxy.clientConnection.kubeconfig !== (await proxyKubeconfigOf(configuration))) {
    remark(
      "ignored",
      "KubeProxyConfiguration",
      "clientConnection.kubeconfig",
      "has no effect: the file is inside of kube-proxy's pods only; the node's own credentials are used",
    );
  }
  return out;
}
