import type { ApiClient } from "../../api/client.ts";
import { ApiUnavailableError } from "../../api/errors.ts";
import { controllerOf, parseStored, type Stored } from "../../api/object.ts";
import { objectPath } from "../../api/resource.ts";
import { PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES } from "../../api/resources.ts";
import { matchesNodeTerm, type SelectableNode } from "../../api/selectors.ts";
import type { PersistentVolume, PersistentVolumeClaim, Volume } from "../../api/types.gen.ts";
import { type Clock, within } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import { allContainers } from "../spec/containers.ts";
import type { AssignedPod } from "../types.ts";
import { volumeName } from "./mount-options.ts";
import { VolumeError } from "./payload.ts";
import type { VolumeSpec } from "./plugin.ts";
import { SetUpError } from "./set-up-report.ts";

/** A claim leads to no volume that this pod may use (yet); nothing was touched. The message is the kubelet's. */
export class ClaimError extends VolumeError {}

export interface ClaimsOptions {
  readonly client: ApiClient;
  readonly clock: Clock;
  /** This node as affinity looks at it; undefined until it is registered. */
  readonly node: () => SelectableNode | undefined;
  /** Uids of the pods of this node that have a directory for the PersistentVolume of this name. */
  readonly podsWith: (volumeName: string) => Promise<readonly string[]>;
}

interface Followed {
  readonly spec: VolumeSpec;
  readonly at: number;
}

const lookupMs = 10_000;
/** A claim that grows is noticed within this time (as by the kubelet, at the pod's resync). */
const growingFreshMs = 60_000;
/** Nothing of other volumes changes for a pod that has them. */
const freshMs = 600_000;
const protection = "kubernetes.io/pvc-protection";

/** Name of the claim behind a volume: an `ephemeral` one has its own, named after the pod. */
export function claimName(pod: AssignedPod, volume: Volume): string | undefined {
  if (volume.persistentVolumeClaim !== undefined) return volume.persistentVolumeClaim.claimName;
  return volume.ephemeral === undefined ? undefined : `${pod.metadata.name}-${volume.name}`;
}

/** Whether a PersistentVolume is handed to containers as a device. */
export function isBlock({ persistent }: Pick<VolumeSpec, "persistent">): boolean {
  return persistent?.volume.spec?.volumeMode === "Block";
}

/** The group that a PersistentVolume is to be used with, if its annotation names one. */
export function volumeGroup({ persistent }: Pick<VolumeSpec, "persistent">): number | undefined {
  const text = persistent?.volume.metadata?.annotations?.["pv.beta.kubernetes.io/gid"] ?? "";
  return /^\d{1,10}$/.test(text) ? Number(text) : undefined;
}

/**
 * Follows the claims of pods to the volumes that they are bound to. What was found is remembered for a while, so that
 * the regular look at a running pod costs no requests and a server that is away takes no volume from it.
 */
export class Claims {
  readonly #options: ClaimsOptions;
  /** By pod uid, then by the volume's name in the pod. */
  readonly #followed = new Map<string, Map<string, Followed>>();
  /** Which pod has a volume that only one may have, by the PersistentVolume's name. */
  readonly #soleUsers = new Map<string, string>();

  constructor(options: ClaimsOptions) {
    this.#options = options;
  }

  /**
   * What to set up for a volume of the pod. A volume that is no claim is itself.
   *
   * @throws {ClaimError} when the claim cannot be used; {@link SetUpError} when its volume must not be mounted here.
   */
  async resolve(pod: AssignedPod, volume: Volume, signal: AbortSignal): Promise<VolumeSpec> {
    const name = claimName(pod, volume);
    if (name === undefined) return { name: volume.name, volume, readOnly: false };
    const { clock } = this.#options;
    const mine = this.#followed.get(pod.metadata.uid);
    const known = mine?.get(volume.name);
    if (known !== undefined && clock.monotonic() - known.at < freshFor(known.spec)) {
      return known.spec;
    }
    try {
      const spec = await this.#follow(pod, volume, name, signal);
      const ofPod = mine ?? new Map<string, Followed>();
      ofPod.set(volume.name, { spec, at: clock.monotonic() });
      this.#followed.set(pod.metadata.uid, ofPod);
      return spec;
    } catch (error) {
      if (signal.aborted && isAbort(error)) throw error;
      if (known === undefined || !isAway(error)) throw error;
      // What the pod has was right when the server was last asked.
      return known.spec;
    }
  }

  /** What {@link resolve} last found, for those who report about volumes. */
  known(podUID: string, volumeName: string): VolumeSpec | undefined {
    return this.#followed.get(podUID)?.get(volumeName)?.spec;
  }

  /** The pod has no volumes any more: others may have them. */
  forget(podUID: string): void {
    this.#followed.delete(podUID);
    for (const [volume, user] of this.#soleUsers) {
      if (user === podUID) this.#soleUsers.delete(volume);
    }
  }

  async #follow(
    pod: AssignedPod,
    volume: Volume,
    name: string,
    signal: AbortSignal,
  ): Promise<VolumeSpec> {
    const { namespace = "" } = pod.metadata;
    const explain = (error: unknown): never => {
      if (signal.aborted && isAbort(error)) throw error;
      const text = `error processing PVC ${namespace}/${name}: ${errorMessage(error)}`;
      throw new ClaimError(text, { cause: error });
    };
    const claim = await this.#claim({ namespace, name }, signal).catch(explain);
    if (volume.ephemeral !== undefined) checkOwner(pod, claim);
    const persistent = await this.#volume(claim, signal).catch(explain);
    const readOnly = volume.persistentVolumeClaim?.readOnly ?? false;
    const spec = { name: volume.name, volume, persistent: { claim, volume: persistent }, readOnly };
    checkMode(pod, spec);
    this.#checkAffinity(spec);
    await this.#checkSoleUser(pod, spec, persistent);
    return spec;
  }

  async #claim(
    at: { readonly namespace: string; readonly name: string },
    signal: AbortSignal,
  ): Promise<Stored<PersistentVolumeClaim>> {
    const path = objectPath(PERSISTENT_VOLUME_CLAIMS, at);
    const answer = await this.#get(path, "PVC", signal);
    const claim = parseStored<PersistentVolumeClaim>(answer);
    const { deletionTimestamp, finalizers = [] } = claim.metadata;
    // While it is protected it stays until the last pod that uses it is gone, and this may be such a pod.
    if (deletionTimestamp !== undefined && !finalizers.includes(protection)) {
      throw new ClaimError("PVC is being deleted");
    }
    if (claim.status?.phase !== "Bound") throw new ClaimError("PVC is not bound");
    if ((claim.spec?.volumeName ?? "") === "") {
      throw new ClaimError("PVC has empty pvc.Spec.VolumeName");
    }
    return claim;
  }

  async #volume(
    claim: Stored<PersistentVolumeClaim>,
    signal: AbortSignal,
  ): Promise<Stored<PersistentVolume>> {
    const name = claim.spec?.volumeName ?? "";
    const answer = await this.#get(objectPath(PERSISTENT_VOLUMES, { name }), `PV ${name}`, signal);
    const volume = parseStored<PersistentVolume>(answer);
    const reference = volume.spec?.claimRef;
    if (reference === undefined) {
      throw new ClaimError(
        `found PV object ${name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim`,
      );
    }
    if (reference.uid !== claim.metadata.uid) {
      throw new ClaimError(
        `found PV object ${name} but its pv.Spec.ClaimRef.UID ${reference.uid ?? ""} does not point to claim.UID ${claim.metadata.uid}`,
      );
    }
    return volume;
  }

  async #get(path: string, what: string, signal: AbortSignal): Promise<unknown> {
    const { client } = this.#options;
    try {
      return await within(signal, lookupMs, (limited) =>
        client.request({ method: "GET", path, signal: limited }),
      );
    } catch (error) {
      if (signal.aborted && isAbort(error)) throw error;
      const text = `failed to fetch ${what} from API server: ${errorMessage(error)}`;
      throw new ClaimError(text, { cause: error });
    }
  }

  /** The scheduler looked at it too; but a pod may name its node itself, and labels change. */
  #checkAffinity(spec: VolumeSpec): void {
    const required = spec.persistent?.volume.spec?.nodeAffinity?.required;
    if (required === undefined) return;
    const node = this.#options.node();
    if (node === undefined) throw new ClaimError("the node is not registered yet");
    if (required.nodeSelectorTerms.some((term) => matchesNodeTerm(term, node))) return;
    const verb = isBlock(spec) ? "MapVolume" : "MountVolume";
    const cause = new ClaimError("no matching NodeSelectorTerms");
    throw new SetUpError("FailedMount", `${verb}.NodeAffinity check`, volumeName(spec), cause);
  }

  /** KEP-2485: with other modes beside it nobody knows which one the pod means. */
  async #checkSoleUser(
    pod: AssignedPod,
    spec: VolumeSpec,
    volume: Stored<PersistentVolume>,
  ): Promise<void> {
    const modes = volume.spec?.accessModes ?? [];
    if (modes.length !== 1 || modes[0] !== "ReadWriteOncePod") return;
    const { name } = volume.metadata;
    const { uid } = pod.metadata;
    const onDisk = await this.#options.podsWith(name);
    // Asked for after the disk, and set without waiting: of two pods that come at once one is first.
    const user = this.#soleUsers.get(name) ?? onDisk.find((each) => each !== uid) ?? uid;
    if (user !== uid) {
      const cause = new ClaimError(
        "volume uses the ReadWriteOncePod access mode and is already in use by another pod",
      );
      throw isBlock(spec)
        ? new SetUpError("FailedMapVolume", "MapVolume.SetUpDevice", name, cause)
        : new SetUpError("FailedMount", "MountVolume.SetUp", name, cause);
    }
    this.#soleUsers.set(name, uid);
  }
}

function freshFor({ persistent }: VolumeSpec): number {
  return persistent?.volume.spec?.csi === undefined ? freshMs : growingFreshMs;
}

function isAway(error: unknown): boolean {
  for (let each = error; each instanceof Error; each = each.cause) {
    if (each instanceof ApiUnavailableError || isAbort(each)) return true;
  }
  return false;
}

function checkOwner(pod: AssignedPod, claim: Stored<PersistentVolumeClaim>): void {
  if (controllerOf(claim.metadata)?.uid === pod.metadata.uid) return;
  const { name, namespace = "" } = claim.metadata;
  throw new ClaimError(
    `PVC ${namespace}/${name} was not created for pod ${pod.metadata.namespace ?? ""}/${pod.metadata.name} (pod is not owner)`,
  );
}

function checkMode(pod: AssignedPod, spec: VolumeSpec): void {
  const mode = isBlock(spec) ? "Block" : "Filesystem";
  const containers = allContainers(pod).map(({ container }) => container);
  const used = (list: readonly { readonly name: string }[] = []): boolean =>
    list.some(({ name }) => name === spec.name);
  if (mode === "Block" && containers.some(({ volumeMounts }) => used(volumeMounts))) {
    throw new ClaimError(
      `volume ${spec.name} has volumeMode ${mode}, but is specified in volumeMounts`,
    );
  }
  if (mode === "Filesystem" && containers.some(({ volumeDevices }) => used(volumeDevices))) {
    throw new ClaimError(
      `volume ${spec.name} has volumeMode ${mode}, but is specified in volumeDevices`,
    );
  }
}
