import type { DeploymentView } from "./view.ts";

type Annotations = Readonly<Record<string, string>>;

/** Number of the rollout, on ReplicaSets and, of the newest, on the Deployment. */
export const revisionAnnotation = "deployment.kubernetes.io/revision";
/** Revisions that a ReplicaSet had before it was rolled back to, oldest first. */
const revisionHistoryAnnotation = "deployment.kubernetes.io/revision-history";
/** `spec.replicas` of the Deployment when the ReplicaSet was last scaled: tells scaling from rolling. */
export const desiredReplicasAnnotation = "deployment.kubernetes.io/desired-replicas";
/** The same plus maxSurge. */
export const maxReplicasAnnotation = "deployment.kubernetes.io/max-replicas";
/** `spec.rollbackTo` of the API's old versions. */
export const rollbackAnnotation = "deprecated.deployment.rollback.to";

/** The Deployment's own business, never copied to its ReplicaSets. */
const ownAnnotations = new Set([
  "kubectl.kubernetes.io/last-applied-configuration",
  revisionAnnotation,
  revisionHistoryAnnotation,
  desiredReplicasAnnotation,
  maxReplicasAnnotation,
  rollbackAnnotation,
]);

const maxHistoryLength = 2000;

const maxInt64 = 2n ** 63n - 1n;

/** A revision as text, 64 bits long as in the API; undefined when it is no such number. */
export function parseRevision(text: string): bigint | undefined {
  if (!/^[+-]?\d+$/.test(text)) return undefined;
  const value = BigInt(text.replace("+", ""));
  return value > maxInt64 || value < -maxInt64 - 1n ? undefined : value;
}

/** The revision; 0 when there is none, undefined when it is no number. */
export function revisionOf(annotations: Annotations): bigint | undefined {
  return parseRevision(annotations[revisionAnnotation] ?? "0");
}

export function highestRevision(
  replicaSets: readonly { readonly annotations: Annotations }[],
): bigint {
  return replicaSets.reduce((highest, { annotations }) => {
    const revision = revisionOf(annotations) ?? 0n;
    return revision > highest ? revision : highest;
  }, 0n);
}

/** A replica count in an annotation; undefined when absent or not one. */
export function countAnnotation(annotations: Annotations, key: string): number | undefined {
  const text = annotations[key] ?? "";
  if (!/^\d+$/.test(text)) return undefined;
  const count = Number(text);
  return count < 2 ** 31 ? count : undefined;
}

/** What says how large the whole Deployment was to be when a ReplicaSet got its size. */
export function replicaAnnotations(
  deployment: Pick<DeploymentView, "replicas" | "maxSurge">,
): Annotations {
  return {
    [desiredReplicasAnnotation]: String(deployment.replicas),
    [maxReplicasAnnotation]: String(deployment.replicas + deployment.maxSurge),
  };
}

function appendRevision(history: string | undefined, revision: string): string {
  if (history === undefined || history === "") return revision;
  const revisions = history.split(",");
  while (revisions.length > 0 && [...revisions, revision].join(",").length > maxHistoryLength)
    revisions.shift();
  return [...revisions, revision].join(",");
}

/**
 * The annotations of the ReplicaSet of the present template: the Deployment's own ones, and a revision above those of
 * all others. A revision that it had before goes into its history.
 */
export function newReplicaSetAnnotations(
  current: Annotations,
  deployment: Annotations,
  revision: bigint,
): Annotations {
  const copied = Object.entries(deployment).filter(([key]) => !ownAnnotations.has(key));
  const annotations: Record<string, string> = { ...current, ...Object.fromEntries(copied) };
  const text = current[revisionAnnotation];
  const before = parseRevision(text === undefined || text === "" ? "0" : text);
  // Some old ones may be gone, so that its own may already be higher.
  if (before === undefined || before >= revision) return annotations;
  annotations[revisionAnnotation] = String(revision);
  if (text !== undefined)
    annotations[revisionHistoryAnnotation] = appendRevision(
      annotations[revisionHistoryAnnotation],
      text,
    );
  return annotations;
}

/** The Deployment's annotations after a rollback to a ReplicaSet: those that came with it then. */
export function rolledBackAnnotations(deployment: Annotations, target: Annotations): Annotations {
  const kept = Object.entries(deployment).filter(([key]) => ownAnnotations.has(key));
  const restored = Object.entries(target).filter(([key]) => !ownAnnotations.has(key));
  const { [rollbackAnnotation]: _done, ...annotations } = Object.fromEntries([
    ...kept,
    ...restored,
  ]);
  return annotations;
}
