import type { DownwardAPIVolumeFile, Volume, VolumeProjection } from "../../api/types.gen.ts";
import type { ReferencedKind, ReferencedObject } from "../objects/referenced-objects.ts";
import { fieldValue, type PodAddresses, resourceFieldValue } from "../spec/field-values.ts";
import type { Resources } from "../spec/quantities.ts";
import type { AssignedPod } from "../types.ts";
import {
  checkPayloadPath,
  keyFiles,
  type Payload,
  type PayloadFile,
  VolumeError,
} from "./payload.ts";
import type { ServiceAccountTokens } from "./service-account-token.ts";

export interface ProjectionSources {
  readonly get: (kind: ReferencedKind, name: string) => Promise<ReferencedObject | undefined>;
  readonly tokens: ServiceAccountTokens;
  readonly addresses: PodAddresses;
  readonly allocatable: Resources;
}

interface KeySource {
  readonly name?: string | undefined;
  readonly items?: readonly { key: string; path: string; mode?: number | undefined }[] | undefined;
  readonly optional?: boolean | undefined;
}

async function objectFiles(
  kind: ReferencedKind,
  source: KeySource,
  defaultMode: number,
  sources: ProjectionSources,
): Promise<Payload> {
  const name = source.name ?? "";
  const object = await sources.get(kind, name);
  if (object === undefined) {
    if (source.optional === true) return new Map();
    throw new VolumeError(`${kind.toLowerCase()} "${name}" not found`);
  }
  return keyFiles(object.files, source, defaultMode);
}

function downwardFiles(
  pod: AssignedPod,
  items: readonly DownwardAPIVolumeFile[],
  defaultMode: number,
  sources: ProjectionSources,
): Payload {
  const out = new Map<string, PayloadFile>();
  for (const { path, fieldRef, resourceFieldRef, mode } of items) {
    const text =
      fieldRef === undefined
        ? resourceFieldRef === undefined
          ? ""
          : resourceFieldValue(pod, undefined, resourceFieldRef, sources.allocatable)
        : fieldValue(pod, fieldRef.fieldPath, sources.addresses);
    const content = Buffer.from(text, "utf8");
    out.set(checkPayloadPath(path), { content, mode: mode ?? defaultMode });
  }
  return out;
}

/** A token is readable by its owner only, once there is an owner (fsGroup or one common user). */
function tokenMode(pod: AssignedPod, defaultMode: number): number {
  return pod.spec?.securityContext?.fsGroup !== undefined || commonUser(pod) !== undefined
    ? 0o600
    : defaultMode;
}

/** The user that all containers run as, when the spec says so for each. */
export function commonUser(pod: AssignedPod): number | undefined {
  const containers = [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])];
  const outer = pod.spec?.securityContext?.runAsUser;
  const users = new Set(
    containers.map(({ securityContext }) => securityContext?.runAsUser ?? outer),
  );
  const [only] = users;
  return users.size === 1 ? only : undefined;
}

async function projectedFiles(
  pod: AssignedPod,
  projection: VolumeProjection,
  defaultMode: number,
  sources: ProjectionSources,
  signal: AbortSignal,
): Promise<Payload> {
  const { configMap, secret, downwardAPI, serviceAccountToken } = projection;
  if (configMap !== undefined) return objectFiles("ConfigMap", configMap, defaultMode, sources);
  if (secret !== undefined) return objectFiles("Secret", secret, defaultMode, sources);
  if (downwardAPI !== undefined) {
    return downwardFiles(pod, downwardAPI.items ?? [], defaultMode, sources);
  }
  if (serviceAccountToken !== undefined) {
    const token = await sources.tokens.get(pod, serviceAccountToken, signal);
    const path = checkPayloadPath(serviceAccountToken.path);
    const file = { content: Buffer.from(token, "utf8"), mode: tokenMode(pod, defaultMode) };
    return new Map([[path, file]]);
  }
  const [type = "unknown"] = Object.keys(projection);
  throw new VolumeError(`projected source ${type} is not supported by this node`);
}

/**
 * The files of a volume that is made from API objects.
 *
 * @throws {VolumeError} when something that must exist does not; ApiError as the server answers.
 */
export async function volumePayload(
  pod: AssignedPod,
  volume: Volume,
  sources: ProjectionSources,
  signal: AbortSignal,
): Promise<Payload> {
  const { configMap, secret, downwardAPI, projected } = volume;
  if (configMap !== undefined) {
    return objectFiles("ConfigMap", configMap, configMap.defaultMode ?? 0o644, sources);
  }
  if (secret !== undefined) {
    const source = { ...secret, name: secret.secretName };
    return objectFiles("Secret", source, secret.defaultMode ?? 0o644, sources);
  }
  if (downwardAPI !== undefined) {
    const mode = downwardAPI.defaultMode ?? 0o644;
    return downwardFiles(pod, downwardAPI.items ?? [], mode, sources);
  }
  const out = new Map<string, PayloadFile>();
  for (const source of projected?.sources ?? []) {
    const mode = projected?.defaultMode ?? 0o644;
    const files = await projectedFiles(pod, source, mode, sources, signal);
    // A later source wins where two have the same path.
    for (const [path, file] of files) out.set(path, file);
  }
  return out;
}
