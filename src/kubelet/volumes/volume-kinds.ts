import type { Volume } from "../../api/types.gen.ts";

/** Volume types this node sets up. */
export type SupportedVolume =
  | "emptyDir"
  | "hostPath"
  | "configMap"
  | "secret"
  | "downwardAPI"
  | "projected";

/** Directory name of the plug-in below `volumes/`, as external tools expect it. */
export const pluginDirectories: Readonly<Record<SupportedVolume, string>> = {
  emptyDir: "kubernetes.io~empty-dir",
  hostPath: "kubernetes.io~host-path",
  configMap: "kubernetes.io~configmap",
  secret: "kubernetes.io~secret",
  downwardAPI: "kubernetes.io~downward-api",
  projected: "kubernetes.io~projected",
};

const supported = Object.keys(pluginDirectories);

/** The volume's type when this node can set it up, else the name of the type it cannot. */
export function volumeKind(
  volume: Volume,
): { readonly kind: SupportedVolume } | { readonly kind: "unsupported"; readonly type: string } {
  const type = Object.entries(volume).find(
    ([field, value]) => field !== "name" && value !== undefined && value !== null,
  )?.[0];
  // A volume without a source is an emptyDir by API convention.
  if (type === undefined) return { kind: "emptyDir" };
  return supported.includes(type)
    ? { kind: type as SupportedVolume }
    : { kind: "unsupported", type };
}
