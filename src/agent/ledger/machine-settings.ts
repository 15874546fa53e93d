import { readFile, readlink, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { errorCode } from "../../lib/errors.ts";
import type { SettingsWitness } from "../../network/sysctls.ts";
import type { ConntrackIO } from "../../proxy/conntrack-settings.ts";
import type { OwnResource } from "../own-resources.ts";
import type { Change, Ledger } from "./ledger.ts";

/** Which kernel a change was made in: settings end with the boot, and those of `net` are a network namespace's. */
export interface KernelIdentity {
  readonly boot: string;
  readonly namespace: string;
}

export async function kernelIdentity(): Promise<KernelIdentity> {
  const [boot, namespace] = await Promise.all([
    readFile("/proc/sys/kernel/random/boot_id", "utf8"),
    readlink("/proc/self/ns/net"),
  ]);
  return { boot: boot.trim(), namespace };
}

/** Whether a change went with the boot that it was made in. */
export function wentWithBoot({ boot }: KernelIdentity): (change: Change) => boolean {
  return (change) => "boot" in change && change.boot !== boot;
}

/** Writes down what network and proxy are about to change on the machine. */
export function settingsWitness(
  ledger: Pick<Ledger, "append">,
  { boot, namespace }: KernelIdentity,
): SettingsWitness {
  return {
    sysctl: (name, former, value) =>
      ledger.append({
        kind: "sysctl",
        name: name.startsWith("/") ? name : `net/${name}`,
        former,
        value,
        boot,
        namespace,
      }),
    module: (name) => ledger.append({ kind: "module", name, boot }),
  };
}

const netSettings = "/proc/sys/net/";

/** Tells `witness` of each setting of connection tracking before it is written. */
export function witnessedConntrack(
  io: ConntrackIO,
  witness: Pick<SettingsWitness, "sysctl">,
): ConntrackIO {
  return {
    cores: io.cores,
    read: (path) => io.read(path),
    write: async (path, text) => {
      const name = path.startsWith(netSettings) ? path.slice(netSettings.length) : path;
      const former = (await io.read(path))?.trim();
      if (former !== undefined) await witness.sysctl(name, former, text);
      await io.write(path, text);
      // The kernel rounds the size of its hash table up to whole pages.
      const made = (await io.read(path))?.trim();
      if (former === undefined || made === undefined || made === text) return;
      await witness.sysctl(name, former, made);
    },
  };
}

interface Setting {
  readonly name: string;
  /** Before the first change of ours. */
  readonly former: string;
  /** What we set it to last. */
  readonly value: string;
}

/** The settings of this kernel and namespace that we changed, the last one first. */
export function changedSettings(
  changes: readonly Change[],
  { boot, namespace }: KernelIdentity,
): readonly Setting[] {
  const settings = new Map<string, Setting>();
  for (const change of changes) {
    if (change.kind !== "sysctl") continue;
    if (change.boot !== boot || change.namespace !== namespace) continue;
    const { name, value } = change;
    settings.set(name, { name, former: settings.get(name)?.former ?? change.former, value });
  }
  return [...settings.values()].filter(({ former, value }) => former !== value).toReversed();
}

/**
 * Kernel settings, back to what they were, where they still are what we made of them: one that has another value by now is
 * somebody else's.
 *
 * @param root `/proc/sys`; another one in tests only.
 */
export function ownSettings(
  changes: readonly Change[],
  kernel: KernelIdentity,
  root = "/proc/sys",
): OwnResource {
  const pathOf = (name: string): string => (name.startsWith("/") ? name : join(root, name));
  const still = async (): Promise<readonly Setting[]> => {
    const out: Setting[] = [];
    for (const setting of changedSettings(changes, kernel)) {
      const path = pathOf(setting.name);
      const current = await readFile(path, "utf8").catch((error: unknown) => {
        // The interface that it was about is gone.
        if (errorCode(error) === "ENOENT") return undefined;
        throw error;
      });
      if (current?.trim() === setting.value) out.push(setting);
    }
    return out;
  };
  return {
    what: "kernel settings",
    remove: async () => {
      for (const { name, former } of await still()) await writeFile(pathOf(name), former);
    },
    left: async () =>
      (await still()).map(
        ({ name, value, former }) => `${spoken(name)} = ${value}, before: ${former}`,
      ),
  };
}

/** As sysctl(8) and people name it. */
function spoken(name: string): string {
  return name.startsWith("/") ? name : name.replaceAll("/", ".");
}
