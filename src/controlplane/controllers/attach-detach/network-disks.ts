import type { Stored } from "../../../api/object.ts";
import type { Pod } from "../../../api/types.gen.ts";
import type { StoredVolume } from "../persistent-volume-binder/claims.ts";
import type { StoredNode } from "./plan.ts";

const iscsiPrefix = "kubernetes.io/iscsi/";
const fcPrefix = "kubernetes.io/fc/";

/**
 * As a node's status names a disk that needs no driver to be attached (`iscsi`, `fc`); undefined for other volumes. Its
 * whole attachment is that name in the status: it keeps the disk from being mounted on two nodes at once.
 */
export function networkDiskName({ spec }: StoredVolume): string | undefined {
  const { fc, iscsi } = spec ?? {};
  if (iscsi !== undefined) {
    return `${iscsiPrefix}${iscsi.targetPortal}:${iscsi.iqn}:${iscsi.lun}`;
  }
  if (fc === undefined) return undefined;
  const { lun, targetWWNs = [], wwids = [] } = fc;
  // As Go prints lists.
  if (targetWWNs.length > 0 && lun !== undefined)
    return `${fcPrefix}[${targetWWNs.join(" ")}]:${lun}`;
  return wwids.length > 0 ? `${fcPrefix}[${wwids.join(" ")}]` : undefined;
}

export function isNetworkDisk(uniqueName: string): boolean {
  return uniqueName.startsWith(iscsiPrefix) || uniqueName.startsWith(fcPrefix);
}

/** A disk that pods of a node want. */
export interface WantedDisk {
  readonly uniqueName: string;
  readonly volume: StoredVolume;
  readonly node: string;
  readonly pods: readonly Stored<Pod>[];
}

export interface DiskPlan {
  /** What the status of nodes has to name, by node. */
  readonly attached: ReadonlyMap<string, readonly string[]>;
  readonly refused: readonly WantedDisk[];
  /** Keys of what no pod wants and nodes still have. */
  readonly unwanted: readonly string[];
  readonly recheckMs: number | undefined;
}

/** Tells a disk on one node from the same disk on another. */
export function diskKey(uniqueName: string, node: string): string {
  return `${uniqueName} on ${node}`;
}

/**
 * Which node may have which disk. Those that have one keep it while their pods want it, and until they have unmounted it.
 *
 * @param leaves How long to wait before a node's disk that nobody wants is given up; undefined for at once.
 */
export function planDisks(
  nodes: Iterable<StoredNode>,
  wanted: readonly WantedDisk[],
  rules: {
    readonly leaves: (node: StoredNode, uniqueName: string) => number | undefined;
    readonly isExclusive: (volume: StoredVolume) => boolean;
  },
): DiskPlan {
  const keys = new Set(wanted.map(({ node, uniqueName }) => diskKey(uniqueName, node)));
  const holders = new Map<string, Set<string>>();
  const attached = new Map<string, string[]>();
  const unwanted: string[] = [];
  let recheckMs: number | undefined;
  const give = (uniqueName: string, node: string): void => {
    const others = holders.get(uniqueName) ?? new Set();
    if (others.has(node)) return;
    holders.set(uniqueName, others.add(node));
    attached.set(node, [...(attached.get(node) ?? []), uniqueName]);
  };
  for (const node of nodes) {
    const { name } = node.metadata;
    const { volumesAttached = [], volumesInUse = [] } = node.status ?? {};
    const has = new Set([...volumesAttached.map((each) => each.name), ...volumesInUse]);
    for (const uniqueName of [...has].filter(isNetworkDisk)) {
      const key = diskKey(uniqueName, name);
      if (!keys.has(key)) {
        const wait = rules.leaves(node, uniqueName);
        unwanted.push(key);
        if (wait === undefined) continue;
        recheckMs = Math.min(recheckMs ?? wait, wait);
      }
      give(uniqueName, name);
    }
  }
  const refused = wanted.filter(({ node, uniqueName, volume }) => {
    const others = [...(holders.get(uniqueName) ?? [])].filter((each) => each !== node);
    if (others.length > 0 && rules.isExclusive(volume)) return true;
    give(uniqueName, node);
    return false;
  });
  return { attached, refused, unwanted, recheckMs };
}
