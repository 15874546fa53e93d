import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { join } from "node:path";

import { errorCode, errorMessage } from "../lib/errors.ts";
import { readIfThere } from "../lib/read-if-there.ts";
import { isSet } from "./agent-members.ts";
import type { Configuration, SettingKind } from "./configuration.ts";
import type { Remark } from "./decode.ts";
import { proxyKubeconfigOf } from "./host-checks.ts";

/** A file or directory that a configuration names, and that has to be there. */
interface NamedFile {
  readonly kind: SettingKind;
  /** The field that names it. */
  readonly field: string;
  readonly path: string;
  readonly is: "file" | "directory" | "either";
  /** A warning: the agent starts, and does without until it is there. */
  readonly severity: "error" | "warning";
  /** What to do, or what comes of it. */
  readonly more: string;
}

/** Why a path is not what it has to be; undefined when it is. */
async function troubleOf({
  is,
  path,
}: Pick<NamedFile, "is" | "path">): Promise<string | undefined> {
  try {
    const facts = await stat(path);
    if (is === "file" && facts.isDirectory()) return "is a directory";
    if (is === "directory" && !facts.isDirectory()) return "is not a directory";
    await access(path, constants.R_OK);
    return undefined;
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENOENT") return "is not there";
    return code === "EACCES" ? "may not be read" : `cannot be read: ${errorMessage(error)}`;
  }
}

/** With a bootstrap kubeconfig the other one is made at the first start. */
async function kubeconfigs({ remora }: Configuration): Promise<readonly NamedFile[]> {
  const { bootstrapKubeconfig, kubeconfig } = remora;
  const more = "give credentials of this node, or --join";
  const named = { kind: "RemoraConfiguration", is: "file", severity: "error", more } as const;
  const own: NamedFile = { ...named, field: "kubeconfig", path: kubeconfig };
  if (bootstrapKubeconfig === "") return kubeconfig === "" ? [] : [own];
  const there = kubeconfig !== "" && (await troubleOf(own)) === undefined;
  return there ? [] : [{ ...named, field: "bootstrapKubeconfig", path: bootstrapKubeconfig }];
}

async function namedFiles(configuration: Configuration): Promise<readonly NamedFile[]> {
  const { kubelet, remora } = configuration;
  const pem = { kind: "KubeletConfiguration", is: "file", severity: "error" } as const;
  const images = { kind: "RemoraConfiguration", severity: "error" } as const;
  const proxyKubeconfig = await proxyKubeconfigOf(configuration);
  const files: readonly NamedFile[] = [
    ...(await kubeconfigs(configuration)),
    {
      ...pem,
      field: "authentication.x509.clientCAFile",
      path: kubelet.authentication.x509.clientCAFile,
      more: "give the PEM of the cluster's CA",
    },
    { ...pem, field: "tlsCertFile", path: kubelet.tlsCertFile, more: "give a PEM file" },
    {
      ...pem,
      field: "tlsPrivateKeyFile",
      path: kubelet.tlsPrivateKeyFile,
      more: "give a PEM file",
    },
    {
      kind: "KubeletConfiguration",
      is: "file",
      severity: "warning",
      field: "resolvConf",
      path: kubelet.resolvConf,
      more: "no pod is made before it is",
    },
    {
      kind: "KubeProxyConfiguration",
      is: "file",
      severity: "error",
      field: "clientConnection.kubeconfig",
      path: proxyKubeconfig,
      more: "give credentials that may read Services, or leave it out",
    },
    {
      ...images,
      is: "either",
      field: "imageCredentialProviderConfig",
      path: remora.imageCredentialProviderConfig,
      more: "give a CredentialProviderConfig",
    },
    {
      ...images,
      is: "directory",
      field: "imageCredentialProviderBinDir",
      path: remora.imageCredentialProviderBinDir,
      more: "give the directory of its programs",
    },
  ];
  return files.filter(({ path }) => path !== "");
}

/** What has to be put right about the files that a configuration names, as they are now. */
export async function fileRemarks(configuration: Configuration): Promise<readonly Remark[]> {
  const out: Remark[] = [];
  for (const file of await namedFiles(configuration)) {
    const trouble = await troubleOf(file);
    if (trouble === undefined) continue;
    const { field, kind, more, path, severity } = file;
    const origin = configuration.settings[kind].get(field)?.origin;
    out.push({ severity, kind, path: field, origin, text: `${path} ${trouble}; ${more}` });
  }
  return out;
}

async function wordsOf(path: string): Promise<readonly string[] | undefined> {
  const text = await readIfThere(path);
  return text?.split(/\s+/).filter((word) => word !== "");
}

/** The controllers that pods are limited by. */
const podControllers = ["cpu", "memory", "pids", "hugetlb"];

/**
 * What is wrong with the place of the pods' cgroups. A root that is not there is no trouble: it is made.
 *
 * @param mounted Where the cgroup file system is.
 */
export async function cgroupRemarks(
  configuration: Configuration,
  mounted = "/sys/fs/cgroup",
): Promise<readonly Remark[]> {
  const { cgroupRoot } = configuration.kubelet;
  const kind = "KubeletConfiguration";
  const path = "cgroupRoot";
  if (!isSet(configuration, kind, path)) return [];
  const origin = configuration.settings[kind].get(path)?.origin;
  const remark = (text: string): readonly Remark[] => [
    { severity: "error", kind, path, origin, text },
  ];
  const parts = cgroupRoot.split("/").filter((part) => part !== "");
  if (parts.some((part) => part === "." || part === "..")) {
    return remark(`${cgroupRoot} is no plain path below the root of cgroups`);
  }
  const available = (await wordsOf(join(mounted, "cgroup.controllers"))) ?? [];
  const needed = podControllers.filter((name) => available.includes(name));
  for (const [at] of parts.entries()) {
    const below = parts.slice(0, at + 1).join("/");
    const directory = join(mounted, below);
    const handed = await wordsOf(join(directory, "cgroup.subtree_control"));
    if (handed === undefined) break;
    const missing = needed.filter((name) => !handed.includes(name));
    const inhabited = ((await wordsOf(join(directory, "cgroup.procs"))) ?? []).length > 0;
    // The kernel's rule of cgroup v2: who has processes has no controlled children, but for the root.
    if (missing.length > 0 && inhabited) {
      return remark(
        `processes live in the cgroup /${below}, so it cannot hand ${missing.join(", ")} down to those of pods; choose another`,
      );
    }
  }
  return [];
}
