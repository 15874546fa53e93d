import { join } from "node:path";

import { errorCode, SetupError } from "../../lib/errors.ts";
import { exec, execResult } from "../../lib/exec.ts";
import { ownDirectories, ownFiles, type OwnResource } from "../own-resources.ts";
import { type Change, readLedger } from "./ledger.ts";
import { setupLedgerName } from "./state-names.ts";

/** Where the launcher writes down what it installs, whatever the state directory is. */
export const setupDirectory = "/var/lib/remora";

/** What was made or installed for this machine rather than for a node. */
export interface MachineTraces {
  readonly resources: readonly OwnResource[];
  readonly records: readonly OwnResource[];
  readonly kept: readonly string[];
}

/** @param removePackages Whether packages that the launcher had to install go too. */
export async function machineTraces(
  removePackages: boolean,
  signal: AbortSignal,
  directory = setupDirectory,
): Promise<MachineTraces> {
  const path = join(directory, setupLedgerName);
  const changes = await readLedger(path);
  const packages = ownPackages(changes);
  const names = removePackages ? [] : await packages.left(signal);
  return {
    resources: [
      ownFiles(
        changes.flatMap((change) => (change.kind === "file" ? [change.path] : [])),
        "log files",
      ),
      ...(removePackages ? [packages] : []),
    ],
    records: [
      ownFiles([path], "setup record"),
      ownDirectories([directory], [path], "setup directory"),
    ],
    kept: [
      ...changes.flatMap((change) =>
        change.kind === "engine"
          ? [
              `${change.name} was started for remora and keeps running: systemctl stop ${change.name}`,
            ]
          : [],
      ),
      ...(names.length === 0
        ? []
        : [
            `packages that were installed for remora stay; --packages removes them, or: apt-get remove ${names.join(" ")}`,
          ]),
    ],
  };
}

/** Packages that the launcher installed because they were missing, as long as they are installed. */
function ownPackages(changes: readonly Change[]): OwnResource {
  const names = new Set(
    changes.flatMap((change) => (change.kind === "package" ? [change.name] : [])),
  );
  const left = async (signal: AbortSignal): Promise<readonly string[]> => {
    const installed: string[] = [];
    for (const name of names) {
      const argv = ["dpkg-query", "-W", "-f", "${Status}", name] as const;
      try {
        const { stdout } = await execResult(argv, { signal });
        if (stdout.endsWith(" installed")) installed.push(name);
      } catch (error) {
        // No dpkg, so nothing that it installed.
        if (errorCode(error) !== "ENOENT") throw error;
      }
    }
    return installed;
  };
  return {
    what: "packages",
    remove: async (signal) => {
      const going = await left(signal);
      if (going.length === 0) return;
      const simulated = await exec(["apt-get", "-s", "remove", ...going], { signal });
      const others = removedBy(simulated).filter((name) => !names.has(name));
      if (others.length > 0) {
        throw new SetupError(
          `they stay: other packages need them (${others.join(", ")}); remove those first`,
        );
      }
      await exec(["apt-get", "-y", "-qq", "remove", ...going], {
        signal,
        env: { DEBIAN_FRONTEND: "noninteractive" },
      });
    },
    left,
  };
}

/** The packages that `apt-get -s remove` says it would remove. */
export function removedBy(simulation: string): readonly string[] {
  return simulation.split("\n").flatMap((line) => {
    const name = /^Remv (\S+)/.exec(line)?.[1];
    return name === undefined ? [] : [name];
  });
}
