import type { Stored } from "../../../api/object.ts";
import { matchesSelector } from "../../../api/selectors.ts";
import type {
  DaemonSet,
  DaemonSetSpec,
  IntOrString,
  LabelSelector,
  PodTemplateSpec,
} from "../../../api/types.gen.ts";
import type { Claimant } from "../shared/ownership.ts";

/** A DaemonSet as its controller sees it, with the API's defaults. */
export interface DaemonSetView extends Claimant {
  readonly generation: number;
  readonly observedGeneration: number;
  readonly minReadySeconds: number;
  readonly revisionHistoryLimit: number;
  readonly collisionCount: number | undefined;
  readonly template: PodTemplateSpec;
  readonly updateType: "RollingUpdate" | "OnDelete";
  readonly maxUnavailable: IntOrString;
  readonly maxSurge: IntOrString;
  /** From an annotation that the API keeps for old clients; pods that carry it are up to date too. */
  readonly templateGeneration: string | undefined;
  readonly numberMisscheduled: number;
  /** An empty selector would claim every pod of the namespace. */
  readonly selectsAll: boolean;
}

const templateGenerationAnnotation = "deprecated.daemonset.template.generation";

function isEmptySelector(selector: LabelSelector | undefined): boolean {
  const { matchLabels = {}, matchExpressions = [] } = selector ?? {};
  return Object.keys(matchLabels).length + matchExpressions.length === 0;
}

function parseSpec(
  spec: DaemonSetSpec | undefined,
): Pick<
  DaemonSetView,
  | "minReadySeconds"
  | "revisionHistoryLimit"
  | "template"
  | "updateType"
  | "maxUnavailable"
  | "maxSurge"
> {
  const { minReadySeconds = 0, revisionHistoryLimit = 10, template = {} } = spec ?? {};
  const { type = "RollingUpdate", rollingUpdate } = spec?.updateStrategy ?? {};
  const { maxUnavailable = 1, maxSurge = 0 } = rollingUpdate ?? {};
  return {
    minReadySeconds,
    revisionHistoryLimit,
    template,
    updateType: type,
    maxUnavailable,
    maxSurge,
  };
}

export function parseDaemonSet(object: Stored<DaemonSet>): DaemonSetView {
  const { metadata, spec, status } = object;
  const selector = spec?.selector;
  const selectsAll = isEmptySelector(selector);
  return {
    namespace: metadata.namespace ?? "",
    name: metadata.name,
    uid: metadata.uid,
    deleting: metadata.deletionTimestamp !== undefined,
    generation: metadata.generation ?? 0,
    observedGeneration: status?.observedGeneration ?? 0,
    collisionCount: status?.collisionCount,
    ...parseSpec(spec),
    templateGeneration: metadata.annotations?.[templateGenerationAnnotation],
    numberMisscheduled: status?.numberMisscheduled ?? 0,
    selectsAll,
    selects: (labels) => !selectsAll && matchesSelector(selector, labels),
  };
}

function scaledUp(value: IntOrString, total: number): number {
  if (typeof value === "number") return value;
  const percent = /^(\d+)%$/.exec(value)?.[1];
  return percent === undefined ? 0 : Math.ceil((Number(percent) * total) / 100);
}

/** How many nodes may be without an available pod, and how many with two, while pods are replaced. */
export function updateLimits(
  view: DaemonSetView,
  desired: number,
): { readonly maxUnavailable: number; readonly maxSurge: number } {
  const maxSurge = scaledUp(view.maxSurge, desired);
  const maxUnavailable = scaledUp(view.maxUnavailable, desired);
  // With neither, an update could never begin.
  return desired > 0 && maxSurge === 0 && maxUnavailable === 0
    ? { maxUnavailable: 1, maxSurge }
    : { maxUnavailable, maxSurge };
}

/** Whether a node may hold an old and a new pod at a time. */
export function allowsSurge(view: DaemonSetView): boolean {
  return view.updateType === "RollingUpdate" && scaledUp(view.maxSurge, 1) > 0;
}
