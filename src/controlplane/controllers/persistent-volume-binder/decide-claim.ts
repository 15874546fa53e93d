import type { EventType } from "../../../api/event-types.ts";
import {
  annotations,
  classOfClaim,
  defaultClass,
  hasAnnotation,
  isBoundTo,
  namedClass,
  type StoredClaim,
  type StoredClass,
  type StoredVolume,
} from "./claims.ts";
import { findVolume, whyUnsuitable } from "./match.ts";

/** What an Event says. */
export interface Remark {
  readonly type: EventType;
  readonly reason: string;
  readonly message: string;
}

/** What the cluster looks like to one claim. */
export interface ClaimView {
  readonly volume: (name: string) => StoredVolume | undefined;
  readonly volumes: () => Iterable<StoredVolume>;
  readonly class: (name: string) => StoredClass | undefined;
  readonly classes: () => Iterable<StoredClass>;
  /** Names of the pods that use the claim and have no node yet. */
  readonly waitingPods: () => readonly string[];
}

/** The next step with a claim. */
export type ClaimStep =
  /** Ties both together, or completes what was begun. */
  | { readonly kind: "bind"; readonly volume: StoredVolume }
  /** The claim names no class, and the cluster has a default one by now. */
  | { readonly kind: "assignClass"; readonly className: string }
  /** A provisioner is asked for a volume. */
  | { readonly kind: "provision"; readonly provisioner: string }
  /** Nothing can be done but wait: phase Pending, without what a bound claim shows. */
  | { readonly kind: "pending"; readonly remark?: Remark }
  /** As it is: only people can mend this. */
  | { readonly kind: "stuck"; readonly remark: Remark }
  /** The volume is gone, or somebody else's. Said once. */
  | { readonly kind: "lost"; readonly remark: Remark };

function warning(reason: string, message: string): Remark {
  return { type: "Warning", reason, message };
}

function normal(reason: string, message: string): Remark {
  return { type: "Normal", reason, message };
}

/** What is to be done with a claim now. */
export function decideClaim(claim: StoredClaim, view: ClaimView): ClaimStep {
  return hasAnnotation(claim, annotations.bindCompleted)
    ? decideBound(claim, view)
    : decideUnbound(claim, view);
}

function decideBound(claim: StoredClaim, view: ClaimView): ClaimStep {
  const name = claim.spec?.volumeName ?? "";
  if (name === "") {
    return {
      kind: "lost",
      remark: warning(
        "ClaimLost",
        "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
      ),
    };
  }
  const volume = view.volume(name);
  if (volume === undefined) {
    return {
      kind: "lost",
      remark: warning(
        "ClaimLost",
        "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
      ),
    };
  }
  const ref = volume.spec?.claimRef;
  if (ref === undefined || ref.uid === claim.metadata.uid) return { kind: "bind", volume };
  return {
    kind: "lost",
    remark: warning(
      "ClaimMisbound",
      "Two claims are bound to the same volume, this one is bound incorrectly",
    ),
  };
}

function decideUnbound(claim: StoredClaim, view: ClaimView): ClaimStep {
  const name = claim.spec?.volumeName ?? "";
  return name === "" ? chooseVolume(claim, view) : takeVolume(claim, view.volume(name));
}

/** The claim asks for one volume by name. */
function takeVolume(claim: StoredClaim, volume: StoredVolume | undefined): ClaimStep {
  if (volume === undefined) return { kind: "pending" };
  const { name } = volume.metadata;
  if (volume.spec?.claimRef === undefined) {
    const problem = whyUnsuitable(volume, claim);
    if (problem === undefined) return { kind: "bind", volume };
    const message = `Cannot bind to requested volume "${name}": ${problem}`;
    return { kind: "pending", remark: warning("VolumeMismatch", message) };
  }
  if (isBoundTo(volume, claim)) return { kind: "bind", volume };
  return {
    kind: "pending",
    remark: warning("FailedBinding", `volume "${name}" already bound to a different claim.`),
  };
}

/** The claim takes any volume that fits. */
function chooseVolume(claim: StoredClaim, view: ClaimView): ClaimStep {
  const className = classOfClaim(claim);
  const chosen = className === "" ? undefined : view.class(className);
  const delayed = chosen?.volumeBindingMode === "WaitForFirstConsumer";
  const volume = findVolume(claim, view.volumes(), { delayed });
  if (volume !== undefined) return { kind: "bind", volume };

  if (namedClass(claim) === undefined) {
    const found = defaultClass(view.classes());
    if (found !== undefined) return { kind: "assignClass", className: found.metadata.name };
  }
  if (delayed && !hasAnnotation(claim, annotations.selectedNode))
    return { kind: "pending", remark: waitingRemark(view.waitingPods()) };
  if (className === "") {
    return {
      kind: "pending",
      remark: normal(
        "FailedBinding",
        "no persistent volumes available for this claim and no storage class is set",
      ),
    };
  }
  if (chosen === undefined) {
    const message = `storageclass.storage.k8s.io "${className}" not found`;
    return { kind: "stuck", remark: warning("ProvisioningFailed", message) };
  }
  const { provisioner } = chosen;
  if (!provisioner.startsWith("kubernetes.io/")) return { kind: "provision", provisioner };
  // No type of volume is built in that could be provisioned (or it means that nobody provisions: no-provisioner).
  const message = `no volume plugin matched name: ${provisioner}`;
  return { kind: "stuck", remark: warning("ProvisioningFailed", message) };
}

function waitingRemark(pods: readonly string[]): Remark {
  const [first] = pods;
  if (first === undefined) {
    const message = "waiting for first consumer to be created before binding";
    return normal("WaitForFirstConsumer", message);
  }
  const which = pods.length === 1 ? `pod ${first}` : `pods ${pods.join(",")}`;
  return normal("WaitForPodScheduled", `waiting for ${which} to be scheduled`);
}
