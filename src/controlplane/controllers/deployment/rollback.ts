import type { PodTemplateSpec } from "../../../api/types.gen.ts";
import {
  parseRevision,
  revisionOf,
  rollbackAnnotation,
  rolledBackAnnotations,
} from "./annotations.ts";
import { sameTemplate, templateHashLabel } from "./template.ts";
import type { DeploymentView, ReplicaSetView } from "./view.ts";

/** What a rollback makes of the Deployment, and the Event that tells. */
export interface Rollback {
  readonly template: PodTemplateSpec;
  readonly annotations: Readonly<Record<string, string>>;
  readonly event: {
    readonly type: "Normal" | "Warning";
    readonly reason: string;
    readonly message: string;
  };
}

/** The revision asked for by the annotation that stands for the former `spec.rollbackTo`; 0 means the last one. */
export function wantedRollback(deployment: DeploymentView): bigint | undefined {
  return parseRevision(deployment.annotations[rollbackAnnotation] ?? "");
}

/** The second highest revision; 0 when there is none. */
function lastRevision(replicaSets: readonly ReplicaSetView[]): bigint {
  const revisions = replicaSets
    .flatMap(({ annotations }) => revisionOf(annotations) ?? [])
    .toSorted((left, right) => (left < right ? 1 : -1));
  return revisions[1] ?? 0n;
}

/**
 * Takes the template of an earlier revision back. (kubectl does the same itself, by a patch, and needs none of this.)
 * Whatever comes of it, the wish is cleared.
 */
export function planRollback(
  deployment: DeploymentView,
  replicaSets: readonly ReplicaSetView[],
  revision: bigint,
): Rollback {
  const unchanged = (reason: string, message: string): Rollback => {
    const { [rollbackAnnotation]: _done, ...annotations } = deployment.annotations;
    return {
      template: deployment.template,
      annotations,
      event: { type: "Warning", reason, message },
    };
  };
  const notFound = "DeploymentRollbackRevisionNotFound";
  const wanted = revision === 0n ? lastRevision(replicaSets) : revision;
  if (wanted === 0n) return unchanged(notFound, "Unable to find last revision.");
  const target = replicaSets.find(({ annotations }) => revisionOf(annotations) === wanted);
  if (target === undefined)
    return unchanged(notFound, "Unable to find the revision to rollback to.");
  if (sameTemplate(target.template, deployment.template)) {
    return unchanged(
      "DeploymentRollbackTemplateUnchanged",
      `The rollback revision contains the same template as current deployment "${deployment.name}"`,
    );
  }
  const { metadata, ...template } = target.template;
  const { [templateHashLabel]: _hash, ...labels } = metadata?.labels ?? {};
  return {
    template: { ...template, metadata: { ...metadata, labels } },
    annotations: rolledBackAnnotations(deployment.annotations, target.annotations),
    event: {
      type: "Normal",
      reason: "DeploymentRollback",
      message: `Rolled back deployment "${deployment.name}" to revision ${wanted}`,
    },
  };
}
