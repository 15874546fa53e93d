import type { KeyToPath } from "../../api/types.gen.ts";
import { RemoraError } from "../../lib/errors.ts";

/** A volume cannot be set up now: `FailedMount`, retried. */
export class VolumeError extends RemoraError {
  readonly code = "REMORA_VOLUME";
  override readonly retryable = true;
}

/** One file of a volume made from API objects. */
export interface PayloadFile {
  readonly content: Uint8Array;
  readonly mode: number;
}

/** Files by path relative to the volume. */
export type Payload = ReadonlyMap<string, PayloadFile>;

/**
 * A relative path that stays inside the volume.
 *
 * @throws {VolumeError} otherwise.
 */
export function checkPayloadPath(path: string): string {
  const parts = path.split("/");
  if (path === "" || path.startsWith("/") || parts.includes("..") || path.length > 4096) {
    throw new VolumeError(`invalid path "${path}": must be relative and must not contain ".."`);
  }
  if (path.startsWith(".."))
    throw new VolumeError(`invalid path "${path}": must not start with ".."`);
  return parts.filter((part) => part !== "" && part !== ".").join("/");
}

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
      throw new VolumeError(`references non-existent config key: ${key}`);
    }
  }
  return out;
}
