import type { ApiClient } from "../../api/client.ts";
import { getObject } from "../../api/objects.ts";
import { SECRETS } from "../../api/resources.ts";
import type { CSIDriverSpec, SecretReference } from "../../api/types.gen.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { AssignedPod } from "../types.ts";
import { VolumeError } from "../volumes/payload.ts";
import type { BoundToken, ServiceAccountTokens } from "../volumes/service-account-token.ts";
import type { CsiVolume } from "./source.ts";

type Texts = Readonly<Record<string, string>>;

/**
 * The data of a Secret that a call takes; nothing where none is named. Read each time: they are used seldom, and nobody
 * keeps them.
 *
 * @param field As messages call it, for example `NodeStageSecretRef`.
 * @throws {VolumeError}
 */
export async function callSecrets(
  client: ApiClient,
  reference: SecretReference | undefined,
  field: string,
  signal: AbortSignal,
): Promise<Texts> {
  if (reference === undefined) return {};
  const { name = "", namespace = "" } = reference;
  try {
    const secret = await getObject(client, SECRETS, { namespace, name }, { signal });
    const decoded = Object.entries(secret.data ?? {}).map(
      ([key, value]) => [key, Buffer.from(value, "base64").toString("utf8")] as const,
    );
    return Object.fromEntries(decoded);
  } catch (error) {
    signal.throwIfAborted();
    throw new VolumeError(
      `fetching ${field} ${namespace}/${name} failed: kubernetes.io/csi: failed to find the secret ${name} in the namespace ${namespace} with error: ${errorMessage(error)}`,
      { cause: error },
    );
  }
}

/** What a driver is told of the pod, when its CSIDriver object has `podInfoOnMount`. */
export function podInfo(pod: AssignedPod, { inline }: CsiVolume): Texts {
  return {
    "csi.storage.k8s.io/pod.name": pod.metadata.name,
    "csi.storage.k8s.io/pod.namespace": pod.metadata.namespace ?? "",
    "csi.storage.k8s.io/pod.uid": pod.metadata.uid,
    "csi.storage.k8s.io/serviceAccount.name": pod.spec?.serviceAccountName ?? "",
    "csi.storage.k8s.io/ephemeral": String(inline),
  };
}

/**
 * Tokens of the pod's service account, as a CSIDriver object's `tokenRequests` want them (KEP-2047).
 *
 * @throws {VolumeError}
 */
async function serviceAccountTokens(
  tokens: Pick<ServiceAccountTokens, "bound">,
  pod: AssignedPod,
  driver: CSIDriverSpec | undefined,
  signal: AbortSignal,
): Promise<Texts> {
  const wishes = driver?.tokenRequests ?? [];
  if (wishes.length === 0) return {};
  const out = new Map<string, BoundToken>();
  for (const { audience, expirationSeconds } of wishes) {
    const { expirationTimestamp, token } = await tokens.bound(
      pod,
      { audience, expirationSeconds },
      signal,
    );
    out.set(audience, { token, expirationTimestamp });
  }
  const sorted = [...out].toSorted(([one], [other]) => (one < other ? -1 : 1));
  return {
    "csi.storage.k8s.io/serviceAccount.tokens": JSON.stringify(Object.fromEntries(sorted)),
  };
}

/** What `NodePublishVolume` is given beside the volume. */
export interface PublishContext {
  readonly volumeContext: Texts;
  readonly secrets: Texts;
}

/** @throws {VolumeError} */
export async function publishContext(
  deps: {
    readonly client: ApiClient;
    readonly tokens: Pick<ServiceAccountTokens, "bound">;
  },
  given: {
    readonly pod: AssignedPod;
    readonly volume: CsiVolume;
    readonly driver: CSIDriverSpec | undefined;
  },
  signal: AbortSignal,
): Promise<PublishContext> {
  const { driver, pod, volume } = given;
  const secrets = await callSecrets(
    deps.client,
    volume.publishSecret,
    "NodePublishSecretRef",
    signal,
  );
  const info = driver?.podInfoOnMount === true ? podInfo(pod, volume) : {};
  // Upstream hands tokens to file systems only.
  const tokens = volume.block ? {} : await serviceAccountTokens(deps.tokens, pod, driver, signal);
  const inSecrets = driver?.serviceAccountTokenInSecrets === true;
  return {
    volumeContext: { ...volume.attributes, ...info, ...(inSecrets ? {} : tokens) },
    secrets: { ...secrets, ...(inSecrets ? tokens : {}) },
  };
}
