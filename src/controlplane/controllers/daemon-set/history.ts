import { isRecord } from "../../../lib/guard.ts";
import type { Stored } from "../../../api/object.ts";
import type {
  ControllerRevision,
  DaemonSet,
  PodTemplateSpec,
  RawExtension,
} from "../../../api/types.gen.ts";
import { sameTemplate } from "../deployment/template.ts";
import { revisionLabel } from "./pods.ts";

type StoredRevision = Stored<ControllerRevision>;

/** Members in the order of their names: other readers of revisions compare the text. */
function inOrder(value: unknown): unknown {
  if (Array.isArray(value)) return value.map((each) => inOrder(each));
  if (!isRecord(value)) return value;
  return Object.fromEntries(
    Object.keys(value)
      .toSorted()
      .map((key) => [key, inOrder(value[key])]),
  );
}

/** The patch that brings a DaemonSet back to its template of now: what a revision holds, and what an undo sends. */
export function revisionData(object: Stored<DaemonSet>): RawExtension {
  return { spec: { template: inOrder({ ...object.spec?.template, $patch: "replace" }) } };
}

function templateOf(revision: StoredRevision): PodTemplateSpec | undefined {
  const spec = revision.data?.["spec"];
  const template = isRecord(spec) ? spec["template"] : undefined;
  if (!isRecord(template)) return undefined;
  const { $patch: _patch, ...rest } = template;
  return rest;
}

/** Whether the revision holds the DaemonSet's template of now. */
export function matchesRevision(object: Stored<DaemonSet>, revision: StoredRevision): boolean {
  const template = templateOf(revision);
  return template !== undefined && sameTemplate(template, object.spec?.template ?? {});
}

/** The value that pods of the revision carry. */
export function hashOf(revision: StoredRevision): string {
  return revision.metadata.labels?.[revisionLabel] ?? revision.metadata.name;
}

export interface History {
  /** Of the current template, the one that counts first; more are duplicates. */
  readonly current: readonly StoredRevision[];
  readonly old: readonly StoredRevision[];
  /** The number of the current revision. */
  readonly number: number;
}

/** Sorts revisions into those of the current template and the others. */
export function sortHistory(
  object: Stored<DaemonSet>,
  revisions: readonly StoredRevision[],
): History {
  const current = revisions.filter((revision) => matchesRevision(object, revision));
  const old = revisions.filter((revision) => !matchesRevision(object, revision));
  return {
    current: current.toSorted((left, right) => right.revision - left.revision),
    old,
    number: Math.max(0, ...old.map(({ revision }) => revision)) + 1,
  };
}

/** Old revisions beyond the limit that no pod is of, the oldest first. */
export function revisionsToDelete(
  old: readonly StoredRevision[],
  limit: number,
  liveHashes: ReadonlySet<string>,
): readonly StoredRevision[] {
  const surplus = Math.max(0, old.length - limit);
  return old
    .filter((revision) => !liveHashes.has(hashOf(revision)))
    .toSorted((left, right) => left.revision - right.revision)
    .slice(0, surplus);
}
