import type { KeyToPath } from "../../api/types.gen.ts";
import { RemoraError } from "../../lib/errors.ts";
import type { ReferencedKind } from "../objects/keyed-object.ts";

/** A volume cannot be set up now: `FailedMount`, retried. */
export class VolumeError extends RemoraError {
  readonly code = "REMORA_VOLUME";
  override readonly retryable = true;
}

/** One file of a volume made from API objects. */
export interface PayloadFile {
  readonly content: Uint8Array;
  readonly mode: number;
  /** Its owner; undefined leaves root. */
  readonly uid?: number | undefined;
}

/** Files by path relative to the volume. */
export type Payload = ReadonlyMap<string, PayloadFile>;

/** PATH_MAX and NAME_MAX of Linux, bytes. */
const maxPathBytes = 4096;
const maxNameBytes = 255;

/** Why a path is refused; the kubelet's words. */
function pathProblem(path: string, parts: readonly string[]): string | undefined {
  if (path === "") return `must not be empty: ""`;
  if (path.startsWith("/")) return `must be relative path: ${path}`;
  if (Buffer.byteLength(path) > maxPathBytes) {
    return `must be less than or equal to ${maxPathBytes} characters`;
  }
  if (path.includes("\0")) return `must not contain NUL: ${JSON.stringify(path)}`;
  if (path.split("/").includes("..")) return `must not contain '..': ${path}`;
  if (parts.some((part) => Buffer.byteLength(part) > maxNameBytes)) {
    return `filenames must be less than or equal to ${maxNameBytes} characters`;
  }
  const [first] = parts;
  if (first === undefined) return `must not be the volume itself: ${path}`;
  // Names that the writer of volumes keeps for itself.
  return first.startsWith("..") ? `must not start with '..': ${path}` : undefined;
}

/**
 * A relative path that stays inside the volume.
 *
 * @throws {VolumeError} otherwise.
 */
export function checkPayloadPath(path: string): string {
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  const problem = pathProblem(path, parts);
  if (problem !== undefined) throw new VolumeError(`invalid path: ${problem}`);
  return parts.join("/");
}

/**
 * Checks that no file is to be a directory at the same time.
 *
 * @throws {VolumeError} otherwise.
 */
export function checkPayload(payload: Payload): void {
  for (const path of payload.keys()) {
    for (let end = path.lastIndexOf("/"); end > 0; end = path.lastIndexOf("/", end - 1)) {
      const parent = path.slice(0, end);
      if (!payload.has(parent)) continue;
      throw new VolumeError(`invalid path: ${path} is below the file ${parent}`);
    }
  }
}

const missingKey: Readonly<Record<ReferencedKind, string>> = {
  ConfigMap: "configmap references non-existent config key",
  Secret: "references non-existent secret key",
};

/**
 * The files that the keys of an object become.
 *
 * @throws {VolumeError} when a key that `items` names is missing and not optional.
 */
export function keyFiles(
  data: ReadonlyMap<string, Uint8Array>,
  source: {
    readonly items?: readonly KeyToPath[] | undefined;
    readonly optional?: boolean | undefined;
  },
  defaultMode: number,
  kind: ReferencedKind = "ConfigMap",
): Payload {
  const out = new Map<string, PayloadFile>();
  const items = source.items ?? [];
  if (items.length === 0) {
    for (const [key, content] of data) {
      out.set(checkPayloadPath(key), { content, mode: defaultMode });
    }
    return out;
  }
  for (const { key, path, mode } of items) {
    const content = data.get(key);
    if (content !== undefined) {
      out.set(checkPayloadPath(path), { content, mode: mode ?? defaultMode });
    } else if (source.optional !== true) {
      throw new VolumeError(`${missingKey[kind]}: ${key}`);
    }
  }
  return out;
}
