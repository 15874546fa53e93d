import type { QosClass } from "./resources.ts";

const tiers: Readonly<Record<QosClass, string>> = {
  Guaranteed: "",
  Burstable: "burstable",
  BestEffort: "besteffort",
};

export interface PodCgroup {
  /** What the runtime is given as the parent. */
  readonly parent: string;
  /** Path of the same cgroup below the root of a hierarchy, no leading slash. */
  readonly path: string;
}

/** The pod's cgroup: `kubepods[/tier]/pod<uid>`, or the slice of that name for the systemd driver. */
export function podCgroup(
  uid: string,
  qos: QosClass,
  options: { readonly cgroupRoot: string; readonly driver: "cgroupfs" | "systemd" },
): PodCgroup {
  const roots = options.cgroupRoot.split("/").filter((part) => part !== "");
  const tier = tiers[qos];
  if (options.driver === "cgroupfs") {
    const parts = [...roots, "kubepods", ...(tier === "" ? [] : [tier]), `pod${uid}`];
    return { parent: `/${parts.join("/")}`, path: parts.join("/") };
  }
  // A dash in a slice name means a level, so the uid's dashes become underscores.
  const names = [
    ...roots.map((root) => root.replace(/\.slice$/, "").replaceAll("-", "_")),
    "kubepods",
    ...(tier === "" ? [] : [tier]),
    `pod${uid.replaceAll("-", "_")}`,
  ];
  const slices = names.map((_, index) => `${names.slice(0, index + 1).join("-")}.slice`);
  return { parent: slices.at(-1) ?? "", path: slices.join("/") };
}
