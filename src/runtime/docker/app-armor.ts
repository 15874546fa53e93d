import { readFile } from "node:fs/promises";

import { RuntimeError } from "../errors.ts";
import type { LinuxSecurityContext } from "../types.ts";

/** Lines of `name (mode)`, one per profile that the kernel holds. */
const profilesFile = "/sys/kernel/security/apparmor/profiles";

/** Whether a profile is in the text of the kernel's list. */
export function isLoaded(list: string, profile: string): boolean {
  return list.split("\n").some((line) => line.replace(/ \([^()]*\)$/, "") === profile);
}

/**
 * Makes sure that the kernel holds the profile that a container names: the engine would find out only at its start.
 * Where securityfs is not to be seen, that is left to the engine.
 *
 * @throws {RuntimeError} `Unsupported`.
 */
export async function checkAppArmorProfile(
  security: LinuxSecurityContext,
  path = profilesFile,
): Promise<void> {
  const { appArmor, privileged } = security;
  if (privileged || appArmor?.kind !== "localhost") return;
  let list: string;
  try {
    list = await readFile(path, "utf8");
  } catch {
    return;
  }
  if (isLoaded(list, appArmor.profile)) return;
  throw new RuntimeError("Unsupported", `apparmor profile not found ${appArmor.profile}`);
}
