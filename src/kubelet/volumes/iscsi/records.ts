import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { namesIn } from "../../../lib/names-in.ts";
import { VolumeError } from "../payload.ts";

/** Where open-iscsi keeps its records: distributions differ. */
export const recordDirectories = ["/etc/iscsi", "/var/lib/iscsi"];

/** Keys of a CHAP Secret (type `kubernetes.io/iscsi-chap`), which are also names of settings in records. */
export const chapKeys = {
  discovery: [
    "discovery.sendtargets.auth.username",
    "discovery.sendtargets.auth.password",
    "discovery.sendtargets.auth.username_in",
    "discovery.sendtargets.auth.password_in",
  ],
  session: [
    "node.session.auth.username",
    "node.session.auth.password",
    "node.session.auth.username_in",
    "node.session.auth.password_in",
  ],
} as const;

/** A record with these settings, whatever it said of them before. */
export function withSettings(record: string, settings: ReadonlyMap<string, string>): string {
  const lines = record.split("\n").filter((line) => {
    const [name = ""] = line.split(" = ", 1);
    return !settings.has(name.trim());
  });
  const end = lines.findIndex((line) => line.startsWith("# END RECORD"));
  const at = end === -1 ? lines.findLastIndex((line) => line !== "") + 1 : end;
  const added = [...settings].map(([name, value]) => `${name} = ${value}`);
  return [...lines.slice(0, at), ...added, ...lines.slice(at)].join("\n");
}

/**
 * What of a Secret is put into records.
 *
 * @throws {VolumeError} for a value that would be more than one line.
 */
export function chapSettings(
  keys: readonly string[],
  secret: Readonly<Record<string, string>>,
): ReadonlyMap<string, string> {
  const out = new Map<string, string>();
  for (const key of keys) {
    const value = secret[key] ?? "";
    if (value === "") continue;
    if (/[\n\r\0]/.test(value)) {
      throw new VolumeError(`iscsi: the value of ${key} in the secret has a line break`);
    }
    out.set(key, value);
  }
  return out;
}

/** `address,port` as record directories are named. */
function portalKey(portal: string): string {
  const colon = portal.lastIndexOf(":");
  return `${portal.slice(0, colon).replaceAll(/[[\]]/g, "")},${portal.slice(colon + 1)}`;
}

/** Files of the records of a portal of a target; the number behind the portal is the target's business. */
async function nodeRecords(
  directories: readonly string[],
  { iface, iqn, portal }: { readonly iqn: string; readonly portal: string; readonly iface: string },
): Promise<readonly string[]> {
  const key = portalKey(portal);
  const found: string[] = [];
  for (const directory of directories) {
    const ofTarget = join(directory, "nodes", iqn);
    for (const name of await namesIn(ofTarget)) {
      if (name !== key && !name.startsWith(`${key},`)) continue;
      const path = join(ofTarget, name);
      const inside = await namesIn(path);
      // Old records are files themselves.
      if (inside.length === 0) found.push(path);
      else if (inside.includes(iface)) found.push(join(path, iface));
    }
  }
  return found;
}

async function discoveryRecords(
  directories: readonly string[],
  portal: string,
): Promise<readonly string[]> {
  const found: string[] = [];
  for (const directory of directories) {
    const path = join(directory, "send_targets", portalKey(portal));
    if ((await namesIn(path)).includes("st_config")) found.push(join(path, "st_config"));
  }
  return found;
}

/**
 * Puts credentials into open-iscsi's record of a portal. Not by iscsiadm: it takes them as arguments, which every process
 * of the machine may read.
 *
 * @throws {VolumeError} when there is no such record.
 */
export async function writeCredentials(
  directories: readonly string[],
  at: { readonly iqn?: string; readonly portal: string; readonly iface: string },
  settings: ReadonlyMap<string, string>,
): Promise<void> {
  if (settings.size === 0) return;
  const { iface, iqn, portal } = at;
  const files =
    iqn === undefined
      ? await discoveryRecords(directories, portal)
      : await nodeRecords(directories, { iqn, portal, iface });
  if (files.length === 0) {
    throw new VolumeError(`iscsi: open-iscsi has no record of ${iqn ?? "targets"} at ${portal}`);
  }
  for (const file of files) {
    const text = withSettings(await readFile(file, "utf8"), settings);
    // In place, as iscsiadm does: any other file in that directory would be taken for a record.
    await writeFile(file, text, { mode: 0o600 });
  }
}
