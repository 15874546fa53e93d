import { mkdir } from "node:fs/promises";
import { join } from "node:path";

import { writeFileAtomic } from "../../lib/atomic-file.ts";
import { errorMessage, SetupError } from "../../lib/errors.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";
import { namesIn } from "../../lib/names-in.ts";
import { readIfThere } from "../../lib/read-if-there.ts";
import { isStateName, isSharedRoot, provesOurs, type StateMode } from "./state-names.ts";

/**
 * Version of everything that lies in a state directory and has no number of its own: address leases, records of volumes,
 * pulls and DNS, the ledger. Raised when an older version could no longer work with it.
 */
export const stateSchema = 1;

/** What says whose a state directory is: `remora.json` in it. */
export interface StateMarker {
  readonly schema: number;
  readonly mode: StateMode;
  readonly nodeName: string;
  /** Version of Remora that began the directory, and the one that used it last. */
  readonly createdBy: string;
  readonly version: string;
  /** RFC 3339, UTC. */
  readonly created: string;
}

export function markerPath(directory: string): string {
  return join(directory, "remora.json");
}

/**
 * The marker of a directory; undefined where there is none.
 *
 * @throws {SetupError} it cannot be understood.
 */
export async function readMarker(directory: string): Promise<StateMarker | undefined> {
  const path = markerPath(directory);
  const text = await readIfThere(path);
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw damaged(path, errorMessage(error));
  }
  const { schema, mode } = isRecord(value) ? value : {};
  if (!isRecord(value) || typeof schema !== "number" || !Number.isInteger(schema)) {
    throw damaged(path, "it has no schema");
  }
  const member = (name: string): string => optionalString(value[name]) ?? "";
  return {
    schema,
    mode: mode === "run" ? "run" : "up",
    nodeName: member("nodeName"),
    createdBy: member("createdBy"),
    version: member("version"),
    created: member("created"),
  };
}

function damaged(path: string, why: string): SetupError {
  return new SetupError(
    `${path} is damaged (${why}); delete it if the directory is remora's: the next start writes it again`,
  );
}

/**
 * Makes sure that this version may work with what a marker says.
 *
 * @throws {SetupError} it is a newer version's; nothing was touched.
 */
export function checkSchema(directory: string, marker: StateMarker, version: string): void {
  if (marker.schema <= stateSchema) return;
  throw new SetupError(
    `${directory} was written by remora ${marker.version} (state schema ${marker.schema}), and this is remora ${version}, which knows schema ${stateSchema}: install remora ${marker.version} or newer again; nothing was changed`,
  );
}

/** Who takes a state directory. */
export interface StateClaim {
  readonly mode: StateMode;
  readonly nodeName: string;
  /** Of this Remora. */
  readonly version: string;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/**
 * Makes sure that a state directory may be taken; returns the marker that is there. Nothing is written.
 *
 * @throws {SetupError} it is somebody else's, of the other mode, or of a newer version.
 */
export async function checkClaim(
  directory: string,
  { mode, version }: Pick<StateClaim, "mode" | "version">,
): Promise<StateMarker | undefined> {
  const found = await readMarker(directory);
  if (found === undefined) {
    await refuseForeign(directory, mode);
    return undefined;
  }
  checkSchema(directory, found, version);
  if (found.mode === mode) return found;
  throw new SetupError(
    `${directory} is that of "remora ${found.mode}": give ${flagOf(mode)} another directory`,
  );
}

/**
 * Marks a state directory as ours before anything is put into it. One of a version that wrote no marker is adopted when
 * what lies in it is provably ours.
 *
 * @throws {SetupError} as {@link checkClaim}; nothing was touched then.
 */
export async function claimStateDirectory(directory: string, claim: StateClaim): Promise<void> {
  const { mode, nodeName, version, now } = claim;
  const found = await checkClaim(directory, claim);
  const same =
    found?.schema === stateSchema && found.version === version && found.nodeName === nodeName;
  if (same) return;
  if (found === undefined) await mkdir(directory, { recursive: true, mode: 0o755 });
  const marker: StateMarker = {
    schema: stateSchema,
    mode,
    nodeName,
    createdBy: found?.createdBy ?? version,
    version,
    created: found?.created ?? new Date(now).toISOString(),
  };
  await writeFileAtomic(markerPath(directory), `${JSON.stringify(marker, undefined, 2)}\n`);
}

async function refuseForeign(directory: string, mode: StateMode): Promise<void> {
  if (await isProvablyOurs(directory, mode)) return;
  const foreign = (await namesIn(directory)).filter((name) => !isStateName(mode, name));
  if (isSharedRoot(mode)) {
    // What kubeadm and drivers put there is no reason; pods that we know nothing of are.
    if ((await namesIn(join(directory, "pods"))).length === 0) return;
    throw new SetupError(
      `${directory}/pods has pods that remora did not make: another kubelet's. Drain this node and move ${directory} away, or give --root-dir`,
    );
  }
  if (foreign.length === 0) return;
  throw new SetupError(
    `${directory} holds something else (${foreign.toSorted().slice(0, 3).join(", ")}) and nothing of remora: choose an empty directory with --state-dir`,
  );
}

/**
 * Makes sure that what is in a directory may be removed.
 *
 * @throws {SetupError} it is not ours, or a newer version's.
 */
export async function checkRemovable(
  directory: string,
  mode: StateMode,
  version: string,
): Promise<void> {
  const marker = await readMarker(directory);
  if (marker !== undefined) {
    checkSchema(directory, marker, version);
    if (marker.mode === mode) return;
    throw new SetupError(
      `${directory} is that of "remora ${marker.mode}": give it with ${flagOf(marker.mode)}`,
    );
  }
  if (await provesOurs(directory, mode)) return;
  const names = await namesIn(directory);
  const own = names.filter((name) => isStateName(mode, name));
  const suspicious = isSharedRoot(mode) ? own : names.filter((name) => !isStateName(mode, name));
  if (suspicious.length === 0) return;
  throw new SetupError(
    `${directory} is not remora's (it holds ${suspicious.toSorted().slice(0, 3).join(", ")} and no sign of remora): nothing was removed`,
  );
}

/** The flag that names a directory of that mode. */
export function flagOf(mode: StateMode): "--state-dir" | "--root-dir" {
  return mode === "up" ? "--state-dir" : "--root-dir";
}

/** Whether a directory is ours: it is marked, or holds what only we make (versions before the marker). */
export async function isProvablyOurs(directory: string, mode: StateMode): Promise<boolean> {
  if ((await readMarker(directory)) !== undefined) return true;
  return provesOurs(directory, mode);
}
