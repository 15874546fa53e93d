import { access } from "node:fs/promises";
import { join } from "node:path";

/** `up`: a directory of its own. `run`: a kubelet's root directory, in which others keep something too. */
export type StateMode = "up" | "run";

/** What of a state directory is written last and removed last: without it nobody could finish a removal that stopped. */
export const recordNames = ["places.json", "ledger.jsonl", "remora.json"] as const;

/** What Remora keeps directly in the directory of `--state-dir`. */
const upNames: readonly string[] = [
  "control-plane",
  "kubelet",
  "volumes",
  "agent.sock",
  "local.sock",
  "dashboard",
];

/** What it keeps in `--root-dir`. The last two are directories of volume drivers, of which a part is ours. */
const runNames: readonly string[] = [
  "pods",
  "network",
  "dns",
  "image_manager",
  "agent.sock",
  "local.sock",
  "dashboard",
  "local-volume-records",
  "local-volumes",
];

/** Written beside its target and renamed over it; a crash leaves one. */
const temporary = /\.[0-9a-f]{12}\.tmp$/;

/** Whether a name in a state directory is one that we give. */
export function isStateName(mode: StateMode, name: string): boolean {
  const plain = name.replace(temporary, "");
  const names: readonly string[] = mode === "up" ? upNames : runNames;
  // A disk of its own for the state has one; what the launcher writes down is there before anything else.
  if (["lost+found", setupLedgerName].includes(name)) return true;
  return names.includes(plain) || recordNames.some((record) => record === plain);
}

/** What the launcher and installers write down, below `/var/lib/remora`: it belongs to the machine, not to a node. */
export const setupLedgerName = "setup.jsonl";

/** Whether others keep something in such a directory too. */
export function isSharedRoot(mode: StateMode): boolean {
  return mode === "run";
}

/** What nobody but us makes: names that versions before the marker left, too. */
const proofs: Readonly<Record<StateMode, readonly string[]>> = {
  up: ["control-plane/store.db", "kubelet/places.json", "kubelet/network/ipam"],
  run: ["places.json", "network/ipam", "joined.kubeconfig", "rotated.kubeconfig"],
};

export async function provesOurs(directory: string, mode: StateMode): Promise<boolean> {
  for (const name of proofs[mode]) {
    const there = await access(join(directory, name)).then(
      () => true,
      () => false,
    );
    if (there) return true;
  }
  return false;
}
