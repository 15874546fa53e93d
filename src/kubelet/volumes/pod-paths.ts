import { join } from "node:path";

import { pluginDirectories, type SupportedVolume } from "./volume-kinds.ts";

/** Where the files of one pod are, laid out as other tools expect below the kubelet's root. */
export interface PodPaths {
  readonly root: string;
  readonly volumes: string;
  /** Of raw block volumes. */
  readonly volumeDevices: string;
  readonly subPaths: string;
  readonly containers: string;
  readonly etcHosts: string;
  readonly resolvConf: string;
  readonly hostname: string;
  readonly volume: (kind: SupportedVolume, name: string) => string;
  readonly subPath: (volume: string, container: string, index: number) => string;
  readonly terminationLog: (container: string, attempt: number) => string;
}

export function podsDirectory(rootDir: string): string {
  return join(rootDir, "pods");
}

export function podPaths(rootDir: string, uid: string): PodPaths {
  const root = join(podsDirectory(rootDir), uid);
  return {
    root,
    volumes: join(root, "volumes"),
    volumeDevices: join(root, "volumeDevices"),
    subPaths: join(root, "volume-subpaths"),
    containers: join(root, "containers"),
    etcHosts: join(root, "etc-hosts"),
    resolvConf: join(root, "resolv.conf"),
    hostname: join(root, "hostname"),
    volume: (kind, name) => join(root, "volumes", pluginDirectories[kind], name),
    subPath: (volume, container, index) =>
      join(root, "volume-subpaths", volume, container, String(index)),
    terminationLog: (container, attempt) => join(root, "containers", container, `${attempt}`),
  };
}
