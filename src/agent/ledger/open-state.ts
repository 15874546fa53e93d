import { access } from "node:fs/promises";
import { dirname } from "node:path";

import type { SettingsWitness } from "../../network/sysctls.ts";
import type { InvokingUser } from "../user-kubeconfig.ts";
import { Ledger, ledgerPath } from "./ledger.ts";
import { kernelIdentity, settingsWitness, wentWithBoot } from "./machine-settings.ts";
import { claimStateDirectory, type StateClaim } from "./state-marker.ts";

/** The state directory of a running agent, and where it writes down what it changes outside of it. */
export interface OpenState {
  readonly witness: SettingsWitness;
  /** To be called before our context is put into somebody's kubeconfig. */
  beforeKubeconfig(path: string, user: InvokingUser): Promise<void>;
}

/**
 * Takes a state directory and opens its ledger. The caller holds the lock of the directory.
 *
 * @throws {SetupError} the directory is somebody else's, of the other mode, or of a newer version; nothing was touched.
 */
export async function openState(directory: string, claim: StateClaim): Promise<OpenState> {
  await claimStateDirectory(directory, claim);
  const kernel = await kernelIdentity();
  const ledger = await Ledger.open(ledgerPath(directory), wentWithBoot(kernel));
  return {
    witness: settingsWitness(ledger, kernel),
    beforeKubeconfig: async (path, { uid, gid }) => {
      const parent = dirname(path);
      if (!(await isThere(parent))) await ledger.append({ kind: "directory", path: parent });
      await ledger.append({ kind: "kubeconfig", path, uid, gid });
    },
  };
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
