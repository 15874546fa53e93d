import type {
  ClusterTrustBundleProjection,
  DownwardAPIVolumeFile,
  ServiceAccountTokenProjection,
  Volume,
  VolumeProjection,
} from "../../api/types.gen.ts";
import type { ClusterTrustBundles } from "../objects/cluster-trust-bundles.ts";
import type { ReferencedKind, ReferencedObject } from "../objects/keyed-object.ts";
import { fieldValue, type PodAddresses, resourceFieldValue } from "../spec/field-values.ts";
import type { Resources } from "../spec/quantities.ts";
import type { AssignedPod } from "../types.ts";
import {
  checkPayload,
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
  /** Undefined: the feature gate ClusterTrustBundleProjection is off. */
  readonly trustBundles?: ClusterTrustBundles | undefined;
  readonly addresses: PodAddresses;
  readonly allocatable: Resources;
}

interface KeySource {
  readonly name?: string | undefined;
  readonly items?: readonly { key: string; path: string; mode?: number | undefined }[] | undefined;
  readonly optional?: boolean | undefined;
}

/** What one source of a volume is turned into files with. */
interface Making {
  readonly pod: AssignedPod;
  readonly defaultMode: number;
  readonly sources: ProjectionSources;
  readonly signal: AbortSignal;
}

async function objectFiles(
  kind: ReferencedKind,
  source: KeySource,
  { defaultMode, sources }: Making,
): Promise<Payload> {
  const name = source.name ?? "";
  const object = await sources.get(kind, name);
  if (object === undefined) {
    if (source.optional === true) return new Map();
    throw new VolumeError(`${kind.toLowerCase()} "${name}" not found`);
  }
  return keyFiles(object.files, source, defaultMode, kind);
}

function downwardText(
  { fieldRef, resourceFieldRef }: DownwardAPIVolumeFile,
  { pod, sources }: Making,
): string {
  if (fieldRef !== undefined) {
    const { fieldPath } = fieldRef;
    // A file would not follow what else a variable may show: addresses, the node's name.
    if (!fieldPath.startsWith("metadata.")) {
      throw new VolumeError(`unsupported fieldPath: ${fieldPath}`);
    }
    return fieldValue(pod, fieldPath, sources.addresses);
  }
  return resourceFieldRef === undefined
    ? ""
    : resourceFieldValue(pod, undefined, resourceFieldRef, sources.allocatable);
}

function downwardFiles(items: readonly DownwardAPIVolumeFile[], making: Making): Payload {
  const out = new Map<string, PayloadFile>();
  const problems: Error[] = [];
  for (const item of items) {
    try {
      const content = Buffer.from(downwardText(item, making), "utf8");
      out.set(checkPayloadPath(item.path), { content, mode: item.mode ?? making.defaultMode });
    } catch (error) {
      problems.push(asError(error));
    }
  }
  throwAll(problems);
  return out;
}

/** A credential is readable by its owner only, once there is an owner (fsGroup or one common user). */
function ownedFile(content: Uint8Array, { defaultMode, pod }: Making): PayloadFile {
  const uid = commonUser(pod);
  const owned = uid !== undefined || pod.spec?.securityContext?.fsGroup !== undefined;
  return { content, mode: owned ? 0o600 : defaultMode, uid };
}

/** The user that all containers run as, when the spec says so for each. */
function commonUser(pod: AssignedPod): number | undefined {
  const containers = [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])];
  const outer = pod.spec?.securityContext?.runAsUser;
  const users = new Set(
    containers.map(({ securityContext }) => securityContext?.runAsUser ?? outer),
  );
  const [only] = users;
  return users.size === 1 ? only : undefined;
}

async function tokenFiles(
  projection: ServiceAccountTokenProjection,
  making: Making,
): Promise<Payload> {
  const path = checkPayloadPath(projection.path);
  const token = await making.sources.tokens.get(making.pod, projection, making.signal);
  return new Map([[path, ownedFile(Buffer.from(token, "utf8"), making)]]);
}

async function trustBundleFiles(
  projection: ClusterTrustBundleProjection,
  making: Making,
): Promise<Payload> {
  const { pod, signal, sources } = making;
  if (sources.trustBundles === undefined) {
    throw new VolumeError(
      "ClusterTrustBundle projection is not supported: the feature gate ClusterTrustBundleProjection is off",
    );
  }
  const path = checkPayloadPath(projection.path);
  const content = await sources.trustBundles.anchors(pod.metadata.uid, projection, signal);
  return new Map([[path, ownedFile(content, making)]]);
}

async function projectedFiles(projection: VolumeProjection, making: Making): Promise<Payload> {
  const { clusterTrustBundle, configMap, downwardAPI, secret, serviceAccountToken } = projection;
  if (configMap !== undefined) return objectFiles("ConfigMap", configMap, making);
  if (secret !== undefined) return objectFiles("Secret", secret, making);
  if (downwardAPI !== undefined) return downwardFiles(downwardAPI.items ?? [], making);
  if (serviceAccountToken !== undefined) return tokenFiles(serviceAccountToken, making);
  if (clusterTrustBundle !== undefined) return trustBundleFiles(clusterTrustBundle, making);
  if (projection.podCertificate !== undefined) {
    throw new VolumeError(
      "podCertificate projection is unimplemented: the feature gate PodCertificateRequest is off",
    );
  }
  // Sources of a later Kubernetes: an API server that knows them has checked that one is there.
  const [type] = Object.keys(projection);
  if (type === undefined) return new Map();
  throw new VolumeError(`projected source ${type} is not supported by this node`);
}

/** One error that says what all of them say, as the kubelet joins them. */
function throwAll(problems: readonly Error[]): void {
  const [first, ...others] = problems;
  if (first === undefined) return;
  if (others.length === 0) throw first;
  const messages = [...new Set(problems.flatMap(messagesOf))];
  throw new ManyProblems(messages, { cause: first });
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

class ManyProblems extends VolumeError {
  readonly messages: readonly string[];

  constructor(messages: readonly string[], options: ErrorOptions) {
    const [first = "", ...others] = messages;
    super(others.length === 0 ? first : `[${messages.join(", ")}]`, options);
    this.messages = messages;
  }
}

function messagesOf(error: Error): readonly string[] {
  return error instanceof ManyProblems ? error.messages : [error.message];
}

async function mergedFiles(
  projections: readonly VolumeProjection[],
  making: Making,
): Promise<Payload> {
  // At once: a token takes a request of its own.
  const results = await Promise.allSettled(
    projections.map(async (projection) => projectedFiles(projection, making)),
  );
  const out = new Map<string, PayloadFile>();
  const problems: Error[] = [];
  for (const result of results) {
    if (result.status === "rejected") problems.push(asError(result.reason));
    // A later source wins where two have the same path.
    else for (const [path, file] of result.value) out.set(path, file);
  }
  making.signal.throwIfAborted();
  throwAll(problems);
  return out;
}

async function unchecked(volume: Volume, making: Omit<Making, "defaultMode">): Promise<Payload> {
  const { configMap, downwardAPI, projected, secret } = volume;
  const by = (defaultMode = 0o644): Making => ({ ...making, defaultMode });
  if (configMap !== undefined) {
    return objectFiles("ConfigMap", configMap, by(configMap.defaultMode));
  }
  if (secret !== undefined) {
    return objectFiles("Secret", { ...secret, name: secret.secretName }, by(secret.defaultMode));
  }
  if (downwardAPI !== undefined) {
    return downwardFiles(downwardAPI.items ?? [], by(downwardAPI.defaultMode));
  }
  return mergedFiles(projected?.sources ?? [], by(projected?.defaultMode));
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
  const payload = await unchecked(volume, { pod, sources, signal });
  checkPayload(payload);
  return payload;
}
