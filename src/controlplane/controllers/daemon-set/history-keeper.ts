import { isAlreadyExists } from "../../../api/errors.ts";
import type { Stored } from "../../../api/object.ts";
import { createObject, deleteObject } from "../../../api/objects.ts";
import { CONTROLLER_REVISIONS, DAEMON_SETS, PODS } from "../../../api/resources.ts";
import type { ControllerRevision, DaemonSet } from "../../../api/types.gen.ts";
import { templateHash } from "../deployment/template.ts";
import { getObject, patchObject, replaceObject } from "../shared/calls.ts";
import type { ControllerContext } from "../shared/controller.ts";
import { claimObjects, controllerReference } from "../shared/ownership.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import {
  hashOf,
  matchesRevision,
  revisionData,
  revisionsToDelete,
  sortHistory,
} from "./history.ts";
import { revisionLabel } from "./pods.ts";
import type { DaemonSetView } from "./view.ts";

type StoredRevision = Stored<ControllerRevision>;

export interface CurrentRevision {
  /** The value of the pods' controller-revision-hash. */
  readonly hash: string;
  readonly old: readonly StoredRevision[];
}

/** Keeps one ControllerRevision per template that a DaemonSet has had: what rollout history and undo read. */
export class HistoryKeeper {
  readonly #context: ControllerContext;

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  /**
   * Makes sure that the current template is on record, as the newest.
   *
   * @throws {ApiError} also 409: a name or a number was taken meanwhile; the next try sees it.
   */
  async ensureCurrent(
    object: Stored<DaemonSet>,
    view: DaemonSetView,
    pods: readonly StoredPod[],
    signal: AbortSignal,
  ): Promise<CurrentRevision> {
    const revisions = await this.#revisions(view, signal);
    const { current, old, number } = sortHistory(object, revisions);
    const [kept, ...duplicates] = current;
    if (kept === undefined) {
      const created = await this.#create(object, view, number, signal);
      return { hash: hashOf(created), old };
    }
    if (duplicates.length > 0) await this.#merge(kept, duplicates, pods, signal);
    if (kept.revision < number) await this.#patch(kept, { revision: number }, signal);
    return { hash: hashOf(kept), old };
  }

  /** Removes old revisions beyond the limit. */
  async prune(
    view: DaemonSetView,
    old: readonly StoredRevision[],
    pods: readonly StoredPod[],
    signal: AbortSignal,
  ): Promise<void> {
    const live = new Set(pods.flatMap((pod) => pod.metadata.labels?.[revisionLabel] ?? []));
    for (const { metadata } of revisionsToDelete(old, view.revisionHistoryLimit, live))
      await deleteObject(this.#context.client, CONTROLLER_REVISIONS, metadata, { signal });
  }

  async #revisions(view: DaemonSetView, signal: AbortSignal): Promise<readonly StoredRevision[]> {
    const { client, informers } = this.#context;
    const candidates = [...informers.controllerRevisions.values()].filter(
      ({ metadata }) => metadata.namespace === view.namespace,
    );
    const claimed = await claimObjects(
      {
        client,
        claimant: view,
        ownerResource: DAEMON_SETS,
        resource: CONTROLLER_REVISIONS,
        objects: candidates,
      },
      signal,
    );
    for (const revision of claimed) {
      if (revision.metadata.labels?.[revisionLabel] !== undefined) continue;
      const labels = { [revisionLabel]: revision.metadata.name };
      await this.#patch(revision, { metadata: { labels } }, signal);
    }
    return claimed;
  }

  async #create(
    object: Stored<DaemonSet>,
    view: DaemonSetView,
    revision: number,
    signal: AbortSignal,
  ): Promise<StoredRevision> {
    const { client } = this.#context;
    const { namespace } = view;
    const hash = templateHash(view.template, view.collisionCount);
    const name = `${view.name}-${hash}`;
    try {
      return await createObject(
        client,
        CONTROLLER_REVISIONS,
        {
          metadata: {
            namespace,
            name,
            labels: { ...view.template.metadata?.labels, [revisionLabel]: hash },
            annotations: object.metadata.annotations,
            ownerReferences: [controllerReference(DAEMON_SETS, view)],
          },
          data: revisionData(object),
          revision,
        },
        { signal },
      );
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      const target = { resource: CONTROLLER_REVISIONS, namespace, name };
      const existing = await getObject(client, target, signal);
      if (matchesRevision(object, existing)) return existing;
      await this.#raiseCollisionCount(object, signal);
      throw error;
    }
  }

  /** Another template has the same hash: the count goes into the next one. */
  async #raiseCollisionCount(object: Stored<DaemonSet>, signal: AbortSignal): Promise<void> {
    const { namespace, name } = object.metadata;
    const target = { resource: DAEMON_SETS, namespace, name };
    const live = await getObject(this.#context.client, target, signal);
    if (live.status?.collisionCount !== object.status?.collisionCount) return;
    const collisionCount = (live.status?.collisionCount ?? 0) + 1;
    await replaceObject(
      this.#context.client,
      { ...target, subresource: "status" },
      { ...live, status: { ...live.status, collisionCount } },
      signal,
    );
  }

  /** Leaves one revision of the current template; pods of the others are of this one then. */
  async #merge(
    kept: StoredRevision,
    duplicates: readonly StoredRevision[],
    pods: readonly StoredPod[],
    signal: AbortSignal,
  ): Promise<void> {
    const { client } = this.#context;
    const names = new Set(duplicates.map((revision) => hashOf(revision)));
    for (const { metadata } of pods) {
      if (!names.has(metadata.labels?.[revisionLabel] ?? "")) continue;
      const { namespace, name, uid } = metadata;
      const patch = { metadata: { uid, labels: { [revisionLabel]: hashOf(kept) } } };
      await patchObject(client, { resource: PODS, namespace, name }, patch, signal);
    }
    for (const { metadata } of duplicates)
      await deleteObject(client, CONTROLLER_REVISIONS, metadata, { signal });
  }

  async #patch(revision: StoredRevision, patch: object, signal: AbortSignal): Promise<void> {
    const { namespace, name } = revision.metadata;
    const target = { resource: CONTROLLER_REVISIONS, namespace, name };
    await patchObject(this.#context.client, target, patch, signal);
  }
}
