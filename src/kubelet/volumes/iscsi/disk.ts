import { isRecord } from "../../../lib/guard.ts";
import { volumeName } from "../mount-options.ts";
import { VolumeError } from "../payload.ts";
import type { VolumeSpec } from "../plugin.ts";

/** One LUN of an iSCSI target, as a volume names it (v1.ISCSIVolumeSource). */
export interface IscsiDisk {
  /** The volume's name. */
  readonly volume: string;
  /** `address:port`, the first one first; more of them are paths to the same disk. */
  readonly portals: readonly string[];
  readonly iqn: string;
  readonly lun: number;
  /** iscsiadm's interface that the volume names. */
  readonly initialIface: string;
  /** The one that is used: a copy with a name of its own where the volume has an initiator name. */
  readonly iface: string;
  readonly initiatorName: string;
  /** Of a PersistentVolume: what the status of nodes calls it. */
  readonly uniqueName?: string;
}

/** How a volume logs in and what it holds, beside {@link IscsiDisk}. */
export interface IscsiAccess {
  readonly fsType: string;
  readonly readOnly: boolean;
  readonly chapDiscovery: boolean;
  readonly chapSession: boolean;
  readonly secret: { readonly namespace: string; readonly name: string } | undefined;
}

const defaultPort = 3260;
const uniquePrefix = "kubernetes.io/iscsi/";

function withPort(portal: string): string {
  return portal.includes(":") && !portal.endsWith("]") ? portal : `${portal}:${defaultPort}`;
}

/** It becomes part of a path and an argument of a program. */
function checkedWord(what: string, word: string): string {
  // eslint-disable-next-line no-control-regex -- these are what must not be in it
  if (word === "" || word.startsWith("-") || /[/\s\u0000-\u001f]/.test(word) || word === "..") {
    throw new VolumeError(`iscsi: invalid ${what} ${JSON.stringify(word)}`);
  }
  return word;
}

/** The Secret of a volume: an inline one's is in the pod's namespace, as is a PersistentVolume's that says nothing. */
function secretAt({ persistent, volume }: VolumeSpec, namespace: string): IscsiAccess["secret"] {
  const own = persistent?.volume.spec?.iscsi?.secretRef;
  const name = (persistent === undefined ? volume.iscsi?.secretRef?.name : own?.name) ?? "";
  if (name === "") return undefined;
  const ownNamespace = own?.namespace ?? "";
  return { namespace: ownNamespace === "" ? namespace : ownNamespace, name };
}

/**
 * The disk of an `iscsi` volume, inline or behind a PersistentVolume; undefined for one of another type.
 *
 * @throws {VolumeError} when its names cannot be used.
 */
export function iscsiDisk(
  spec: VolumeSpec,
  namespace: string,
): { readonly disk: IscsiDisk; readonly access: IscsiAccess } | undefined {
  const { persistent, volume } = spec;
  const source = persistent === undefined ? volume.iscsi : persistent.volume.spec?.iscsi;
  if (source === undefined) return undefined;
  const portals = [source.targetPortal, ...(source.portals ?? [])].map((portal) =>
    withPort(checkedWord("portal", portal)),
  );
  const [first = ""] = portals;
  const initialIface = checkedWord("interface", source.iscsiInterface ?? "default");
  const initiatorName = source.initiatorName ?? "";
  if (initiatorName !== "") checkedWord("initiator name", initiatorName);
  const name = volumeName(spec);
  return {
    disk: {
      volume: name,
      portals: [...new Set(portals)],
      iqn: checkedWord("target", source.iqn),
      lun: source.lun,
      initialIface,
      iface: initiatorName === "" ? initialIface : `${first}:${name}`,
      initiatorName,
      ...(persistent === undefined
        ? {}
        : { uniqueName: `${uniquePrefix}${source.targetPortal}:${source.iqn}:${source.lun}` }),
    },
    access: {
      fsType: source.fsType ?? "",
      readOnly: spec.readOnly || (source.readOnly ?? false),
      chapDiscovery: source.chapAuthDiscovery ?? false,
      chapSession: source.chapAuthSession ?? false,
      secret: secretAt(spec, namespace),
    },
  };
}

/** What a pod's directory and the shared mount keep about the disk, in the kubelet's own format. */
export function formatRecord(disk: IscsiDisk): string {
  return JSON.stringify({
    VolName: disk.volume,
    Portals: disk.portals,
    Iqn: disk.iqn,
    Lun: String(disk.lun),
    InitIface: disk.initialIface,
    Iface: disk.iface,
    InitiatorName: disk.initiatorName,
    ...(disk.uniqueName === undefined ? {} : { UniqueName: disk.uniqueName }),
  });
}

/** Undefined for what is no such record. */
export function parseRecord(text: string): IscsiDisk | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isRecord(value)) return undefined;
  const word = (field: string): string => {
    const found = value[field];
    return typeof found === "string" ? found : "";
  };
  const { Portals: portals } = value;
  const list = Array.isArray(portals)
    ? portals.filter((portal): portal is string => typeof portal === "string")
    : [];
  const lun = Number(word("Lun"));
  if (list.length === 0 || word("Iqn") === "" || !Number.isInteger(lun)) return undefined;
  return {
    volume: word("VolName"),
    portals: list,
    iqn: word("Iqn"),
    lun,
    initialIface: word("InitIface"),
    iface: word("Iface"),
    initiatorName: word("InitiatorName"),
    ...(word("UniqueName") === "" ? {} : { uniqueName: word("UniqueName") }),
  };
}

/** Directory of the target at its first portal; what follows is the LUN. */
export function targetPrefix({ iqn, portals: [portal = ""] }: IscsiDisk): string {
  return `${portal}-${iqn}-lun-`;
}

/** Last part of {@link sharedName} of the disk that a node's status names; undefined for other volumes. */
export function sharedNameOf(uniqueName: string): string | undefined {
  const found = /^kubernetes\.io\/iscsi\/(.+):((?:iqn|eui|naa)\..+):(\d+)$/.exec(uniqueName);
  if (found === null) return undefined;
  const [, portal = "", iqn = "", lun = ""] = found;
  return `${withPort(portal)}-${iqn}-lun-${lun}`;
}

/** Below the plug-in's directory: where the disk is mounted for all pods, or is known as a device. */
export function sharedName(disk: IscsiDisk): string {
  return `iface-${disk.iface}/${targetPrefix(disk)}${disk.lun}`;
}

/** Name below /dev/disk/by-path. Of transports other than tcp only the end is known. */
export function devicePathPattern(
  portal: string,
  { iqn, lun }: IscsiDisk,
  transport: string,
): RegExp {
  // udev's names have no brackets.
  const address = portal.replaceAll(/[[\]]/g, "");
  const name = `ip-${address}-iscsi-${iqn}-lun-${lun}`;
  const end = name.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
  return new RegExp(transport === "tcp" ? `^${end}$` : `^pci-.*-${end}$`);
}

/** Settings of an interface, from `iscsiadm -m iface -I NAME -o show`. */
export function interfaceSettings(shown: string): ReadonlyMap<string, string> {
  const out = new Map<string, string>();
  for (const line of shown.split("\n")) {
    const [name = "", value = ""] = line.split(" = ", 2);
    // The name of an interface never changes.
    if (!name.startsWith("iface.") || name === "iface.iscsi_ifacename") continue;
    if (value.trim() !== "<empty>") out.set(name, value.trim());
  }
  return out;
}

/** How an interface reaches its targets; iscsiadm shows an empty one for the ordinary way. */
export function transportOf(shown: string): string | undefined {
  const found = /^iface\.transport_name = (.*)$/m.exec(shown)?.[1]?.trim();
  return found === "<empty>" || found === "" ? "tcp" : found;
}
