import type { ApiClient } from "../../api/client.ts";
import type { EventRecorder, EventTarget, EventType } from "../../api/event-types.ts";
import { keyOf, type Stored } from "../../api/object.ts";
import { getObject, patchObject } from "../../api/objects.ts";
import { PERSISTENT_VOLUME_CLAIMS } from "../../api/resources.ts";
import type {
  PersistentVolume,
  PersistentVolumeClaim,
  PersistentVolumeClaimCondition,
} from "../../api/types.gen.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { podTarget } from "../pods/event-target.ts";
import { nanoUnits, wholeUnits } from "../spec/quantities.ts";
import type { AssignedPod } from "../types.ts";
import { VolumeError } from "../volumes/payload.ts";
import { SetUpError } from "../volumes/set-up-report.ts";
import { callSecrets } from "./call-context.ts";
import { type DriverConnection, volumeCapability, withDriver } from "./driver-connection.ts";
import type { CsiDrivers } from "./drivers.ts";
import { nodeMethods } from "./methods.ts";
import { RpcError, rpcCodes } from "./rpc.ts";
import { accessModeOf, type CsiVolume } from "./source.ts";

type Quantity = string | number;

export interface ExpansionDeps {
  readonly client: ApiClient;
  readonly drivers: CsiDrivers;
  readonly events?: EventRecorder;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface ExpansionOrder {
  readonly pod: AssignedPod;
  readonly volume: CsiVolume;
  readonly persistent: {
    readonly claim: PersistentVolumeClaim;
    readonly volume: PersistentVolume;
  };
  /** What the last call came to; undefined for the first one of this process: the volume is just being mounted. */
  readonly before: Expansion | undefined;
  readonly volumePath: string;
  /** Where the volume is staged, if its driver stages volumes. */
  readonly stagingTargetPath: string;
}

/** How large a volume is for one pod. */
export interface Expansion {
  /** What it has been grown to, as far as is known. */
  readonly size: Quantity | undefined;
  /** The driver cannot grow it while it is in use: not tried again before it is mounted anew. */
  readonly inUse: boolean;
  /** The last try failed for good. */
  readonly failedForGood: boolean;
}

const storage = "storage";
const notRequired = "volume.kubernetes.io/node-expansion-not-required";
const resizeConditions: ReadonlySet<string> = new Set([
  "FileSystemResizePending",
  "Resizing",
  "ControllerResizeError",
  "NodeResizeError",
]);
const infeasibleCodes: ReadonlySet<number> = new Set([
  rpcCodes.invalidArgument,
  rpcCodes.outOfRange,
  rpcCodes.notFound,
]);

/** The driver did not grow a volume. */
class ExpandError extends VolumeError {
  readonly kind: "notSupported" | "inUse" | "infeasible" | "final" | "uncertain";

  constructor(kind: ExpandError["kind"], message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

/**
 * Lets a file system follow the size of its volume (`NodeExpandVolume`), and tells the claim: when the volume is mounted
 * after it has grown, and while it is in use. Nothing happens while the sizes agree.
 *
 * @throws {SetUpError} while a volume that is just being mounted cannot be grown; later that is an event.
 */
export async function expandVolume(
  deps: ExpansionDeps,
  order: ExpansionOrder,
  signal: AbortSignal,
): Promise<Expansion> {
  const { before, persistent, pod, volume } = order;
  const known = before?.size ?? persistent.claim.status?.capacity?.[storage];
  const wanted = persistent.volume.spec?.capacity?.[storage];
  const now = before ?? { size: known, inUse: false, failedForGood: false };
  if (now.inUse || known === undefined || wanted === undefined || !isLess(known, wanted))
    return now;
  try {
    return await new Expander(deps, order, now).expand(wanted, signal);
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof VolumeError)) throw error;
    if (before === undefined) {
      throw new SetUpError(
        "FailedMount",
        "MountVolume.Setup failed while expanding volume",
        volume.name,
        error,
      );
    }
    deps.events?.event(
      podTarget(pod),
      "Warning",
      "VolumeResizeFailed",
      `NodeExpandVolume.NodeExpandVolume failed for volume "${volume.name}" : ${error.message}`,
    );
    return { ...now, failedForGood: isFinal(error) };
  }
}

function isLess(one: Quantity, other: Quantity): boolean {
  return nanoUnits(one) < nanoUnits(other);
}

function isFinal(error: unknown): boolean {
  return error instanceof ExpandError && error.kind !== "uncertain";
}

/** What a claim that tells how far its growth is wants of the node; `updated`: its status has the new size already. */
function recoveryStep(
  { metadata, spec, status }: Stored<PersistentVolumeClaim>,
  size: Quantity,
): { readonly step: "done" | "wait" | "grow"; readonly updated: boolean } {
  const resizing = status?.allocatedResourceStatuses?.[storage];
  const current = status?.capacity?.[storage];
  const updated = resizing === undefined && current !== undefined && !isLess(current, size);
  if (updated) {
    // Of a volume that several nodes have, each has to follow, and another one was first.
    const everywhere =
      spec?.accessModes?.includes("ReadWriteMany") === true &&
      metadata.annotations?.[notRequired] === undefined;
    return { step: everywhere ? "grow" : "done", updated };
  }
  const pending = resizing === "NodeResizePending" || resizing === "NodeResizeInProgress";
  return { step: pending ? "grow" : "wait", updated };
}

/** One try to grow one volume. */
class Expander {
  readonly #deps: ExpansionDeps;
  readonly #order: ExpansionOrder;
  readonly #now: Expansion;

  constructor(deps: ExpansionDeps, order: ExpansionOrder, now: Expansion) {
    this.#deps = deps;
    this.#order = order;
    this.#now = now;
  }

  async expand(wanted: Quantity, signal: AbortSignal): Promise<Expansion> {
    const { volume } = this.#order;
    const claim = await this.#claim(signal);
    const done = (size: Quantity): Expansion => ({ size, inUse: false, failedForGood: false });
    if (volume.readOnly) {
      const text = `MountVolume.NodeExpandVolume failed for volume "${volume.name}" requested read-only file system`;
      this.#tell(claim, "Warning", "FileSystemResizeFailed", text);
      return done(wanted);
    }
    const { allocatedResources, allocatedResourceStatuses } = claim.status ?? {};
    const allocated = allocatedResources?.[storage];
    // A resizer of before KEP-1790 writes neither.
    const recovers = allocated !== undefined || allocatedResourceStatuses?.[storage] !== undefined;
    return recovers
      ? this.#recoverable(claim, allocated ?? wanted, signal)
      : this.#plain(claim, wanted, signal);
  }

  async #plain(
    claim: Stored<PersistentVolumeClaim>,
    size: Quantity,
    signal: AbortSignal,
  ): Promise<Expansion> {
    const done = { size, inUse: false, failedForGood: false };
    try {
      await this.#call(size, signal);
    } catch (error) {
      if (!(error instanceof ExpandError)) throw error;
      // Neither keeps the volume from being used as it is.
      if (error.kind === "notSupported") return done;
      if (error.kind === "inUse") return { ...this.#now, inUse: true };
      throw error;
    }
    this.#succeeded(claim);
    const current = claim.status?.capacity?.[storage];
    if (current === undefined || isLess(current, size)) await this.#finish(claim, size, signal);
    return done;
  }

  /** With a claim that tells how far its growth is (KEP-1790): what fails can be taken back by its owner. */
  async #recoverable(
    claim: Stored<PersistentVolumeClaim>,
    size: Quantity,
    signal: AbortSignal,
  ): Promise<Expansion> {
    const done = { size, inUse: false, failedForGood: false };
    const { step, updated } = recoveryStep(claim, size);
    if (step === "done") return done;
    if (step === "wait") return this.#now;
    const told = updated ? claim : await this.#mark(claim, "NodeResizeInProgress", signal);
    try {
      await this.#call(size, signal);
    } catch (error) {
      if (!(error instanceof ExpandError)) throw error;
      if (error.kind === "notSupported" && updated) return done;
      await this.#failed(told, size, error, signal);
      if (error.kind === "inUse") return { ...this.#now, inUse: true };
      throw error;
    }
    this.#succeeded(told);
    if (!updated) await this.#finish(told, size, signal);
    return done;
  }

  /** @throws {ExpandError} */
  async #call(size: Quantity, signal: AbortSignal): Promise<void> {
    const { clock, drivers } = this.#deps;
    const { volume } = this.#order;
    try {
      await withDriver(
        { clock, drivers },
        volume.id.driver,
        (driver) => this.#request(driver, size, signal),
        signal,
      );
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
      throw expandError(error);
    }
  }

  async #request(driver: DriverConnection, size: Quantity, signal: AbortSignal): Promise<void> {
    const { stagingTargetPath, volume, volumePath } = this.#order;
    if (!(await driver.can("expandVolume"))) {
      throw new ExpandError(
        "notSupported",
        `NodeExpand is not supported by the CSI driver ${volume.id.driver}`,
      );
    }
    await driver.call(nodeMethods.expand, {
      volumeId: volume.id.handle,
      volumePath,
      capacityRange: { requiredBytes: wholeUnits(size) },
      stagingTargetPath: (await driver.can("stageUnstageVolume")) ? stagingTargetPath : "",
      volumeCapability: await volumeCapability(driver, {
        accessMode: accessModeOf(volume),
        block: volume.block,
        fsType: volume.fsType,
        mountOptions: volume.mountOptions,
      }),
      secrets: await callSecrets(
        this.#deps.client,
        volume.expandSecret,
        "NodeExpandSecretRef",
        signal,
      ),
    });
  }

  async #failed(
    claim: Stored<PersistentVolumeClaim>,
    size: Quantity,
    error: ExpandError,
    signal: AbortSignal,
  ): Promise<void> {
    if (!isFinal(error)) return;
    const asked = claim.spec?.resources?.requests?.[storage];
    const changed = asked !== undefined && nanoUnits(asked) !== nanoUnits(size);
    const infeasible =
      error.kind === "infeasible" || (changed && this.#order.before?.failedForGood === true);
    const condition: PersistentVolumeClaimCondition = {
      type: "NodeResizeError",
      status: "True",
      lastTransitionTime: new Date(this.#deps.clock.now()).toISOString().replace(/\.\d+Z$/, "Z"),
      message: `failed to expand pvc with ${error.message}`,
    };
    const others = (claim.status?.conditions ?? []).filter(({ type }) => type !== condition.type);
    await this.#patch(
      claim,
      {
        conditions: [...others, condition],
        ...(infeasible ? { allocatedResourceStatuses: { [storage]: "NodeResizeInfeasible" } } : {}),
      },
      { signal, exact: false },
    ).catch((cause: unknown) => {
      signal.throwIfAborted();
      this.#deps.logger.log("warn", "claim was not told that its volume does not grow", {
        claim: keyOf(claim),
        error: errorMessage(cause),
      });
    });
  }

  async #mark(
    claim: Stored<PersistentVolumeClaim>,
    status: string,
    signal: AbortSignal,
  ): Promise<Stored<PersistentVolumeClaim>> {
    return this.#patch(
      claim,
      { allocatedResourceStatuses: { [storage]: status } },
      { signal, exact: true },
    );
  }

  async #finish(
    claim: Stored<PersistentVolumeClaim>,
    size: Quantity,
    signal: AbortSignal,
  ): Promise<void> {
    const kept = (claim.status?.conditions ?? []).filter(({ type }) => !resizeConditions.has(type));
    await this.#patch(
      claim,
      {
        capacity: { [storage]: size },
        allocatedResourceStatuses: { [storage]: null },
        conditions: kept,
      },
      { signal, exact: true },
    ).catch((cause: unknown) => {
      signal.throwIfAborted();
      const text = `mountVolume.NodeExpandVolume update PVC status failed : ${errorMessage(cause)}`;
      throw new VolumeError(text, { cause });
    });
  }

  async #patch(
    claim: Stored<PersistentVolumeClaim>,
    status: object,
    { exact, signal }: { readonly signal: AbortSignal; readonly exact: boolean },
  ): Promise<Stored<PersistentVolumeClaim>> {
    const { name, namespace, resourceVersion } = claim.metadata;
    const patch = { ...(exact ? { metadata: { resourceVersion } } : {}), status };
    return patchObject(
      this.#deps.client,
      PERSISTENT_VOLUME_CLAIMS,
      { namespace, name, patch },
      { signal, type: "application/merge-patch+json", subresource: "status" },
    );
  }

  async #claim(signal: AbortSignal): Promise<Stored<PersistentVolumeClaim>> {
    const { name = "", namespace } = this.#order.persistent.claim.metadata ?? {};
    try {
      const at = { namespace, name };
      return await getObject(this.#deps.client, PERSISTENT_VOLUME_CLAIMS, at, { signal });
    } catch (error) {
      signal.throwIfAborted();
      throw new VolumeError(
        `mountVolume.NodeExpandVolume get PVC failed : ${errorMessage(error)}`,
        {
          cause: error,
        },
      );
    }
  }

  #succeeded(claim: Stored<PersistentVolumeClaim>): void {
    const { pod, volume } = this.#order;
    const text = `MountVolume.NodeExpandVolume succeeded for volume "${volume.name}" ${pod.spec?.nodeName ?? ""}`;
    this.#tell(claim, "Normal", "FileSystemResizeSuccessful", text);
  }

  #tell(
    claim: Stored<PersistentVolumeClaim>,
    type: EventType,
    reason: string,
    message: string,
  ): void {
    const { name, namespace = "", resourceVersion, uid } = claim.metadata;
    const kind = "PersistentVolumeClaim";
    const target: EventTarget = { kind, apiVersion: "v1", namespace, name, uid, resourceVersion };
    this.#deps.events?.event(podTarget(this.#order.pod), type, reason, message);
    this.#deps.events?.event(target, type, reason, message);
  }
}

function expandError(error: RpcError): ExpandError {
  const text = "Expander.NodeExpand failed to expand the volume";
  const options = { cause: error };
  if (error.status === rpcCodes.failedPrecondition) {
    return new ExpandError("inUse", `${text} : ${error.message}`, options);
  }
  if (infeasibleCodes.has(error.status)) {
    return new ExpandError("infeasible", `${text} ${error.message}`, options);
  }
  return new ExpandError(
    error.final ? "final" : "uncertain",
    `${text} : ${error.message}`,
    options,
  );
}
