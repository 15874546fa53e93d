import { lstat, readlink } from "node:fs/promises";
import { join } from "node:path";

import { errorCode } from "../../lib/errors.ts";
import { exec, execResult } from "../../lib/exec.ts";
import { namesIn } from "../../lib/names-in.ts";
import type { OwnResource } from "../own-resources.ts";

/** The units that we ship. Sockets first: stopped after its service, one would start that again. */
export const unitNames = [
  "remora.socket",
  "remora-up.socket",
  "remora-up.service",
  "remora.service",
] as const;

/** Where systemd keeps what an administrator has enabled. */
const configured = "/etc/systemd/system";

/** Whether this machine runs systemd. */
async function runsSystemd(): Promise<boolean> {
  return lstat("/run/systemd/system").then(
    () => true,
    () => false,
  );
}

/** Links below `*.wants` and `*.requires` that enable a unit of ours, as `systemctl enable` makes them. */
async function enablingLinks(root: string): Promise<readonly string[]> {
  const links: string[] = [];
  for (const directory of await namesIn(root)) {
    if (!/\.(wants|requires)$/.test(directory)) continue;
    for (const name of await namesIn(join(root, directory))) {
      if (!unitNames.some((unit) => unit === name)) continue;
      const path = join(root, directory, name);
      const target = await readlink(path).catch((error: unknown) => {
        if (errorCode(error) === "EINVAL") return undefined;
        throw error;
      });
      if (target !== undefined) links.push(path);
    }
  }
  return links;
}

async function isActive(unit: string, signal: AbortSignal): Promise<boolean> {
  const { stdout } = await execResult(["systemctl", "is-active", unit], { signal });
  return ["active", "activating", "reloading", "deactivating"].includes(stdout.trim());
}

/**
 * Our units: stopped and not started again. Their files are the package's.
 *
 * @param root Another directory than systemd's in tests only.
 */
export function ownUnits(root = configured): OwnResource {
  const left = async (signal: AbortSignal): Promise<readonly string[]> => {
    const links = (await enablingLinks(root)).map((path) => `enabled: ${path}`);
    if (!(await runsSystemd())) return links;
    const active: string[] = [];
    for (const unit of unitNames) {
      if (await isActive(unit, signal)) active.push(`running: ${unit}`);
    }
    return [...active, ...links];
  };
  return {
    what: "units",
    remove: async (signal) => {
      if ((await left(signal)).length === 0) return;
      const known = await knownUnits(signal);
      // Where systemd does not run (an image that is being built) there is nothing to stop.
      const now = (await runsSystemd()) ? ["--now"] : [];
      if (known.length > 0) await exec(["systemctl", "disable", ...now, ...known], { signal });
    },
    left,
  };
}

async function knownUnits(signal: AbortSignal): Promise<readonly string[]> {
  const known: string[] = [];
  for (const unit of unitNames) {
    const { exitCode } = await execResult(["systemctl", "cat", unit], { signal });
    if (exitCode === 0) known.push(unit);
  }
  return known;
}
