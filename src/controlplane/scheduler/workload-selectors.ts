import type { Informer } from "../../api/informer-types.ts";
import type { Stored } from "../../api/object.ts";
import type { LabelSelector, ReplicationController, Service } from "../../api/types.gen.ts";
import { matchesMap } from "../../api/selectors.ts";
import type { NamespaceIndex } from "../controllers/shared/by-namespace.ts";
import { indexByNamespace } from "../controllers/shared/by-namespace.ts";
import type { StoredPod } from "../controllers/shared/pod-state.ts";
import type { LabelMatcher, Requirement } from "./label-matcher.ts";
import { requirementsMatcher, selectorRequirements } from "./label-matcher.ts";

/** An owner whose pods are copies of one another. */
interface Workload {
  readonly spec?: { readonly selector?: LabelSelector } | undefined;
}

export interface WorkloadSources {
  readonly services: Informer<Stored<Service>>;
  readonly replicationControllers: Informer<Stored<ReplicationController>>;
  /** By `apiVersion/kind` of the owner, for example `apps/v1/ReplicaSet`. */
  readonly owners: ReadonlyMap<string, Pick<Informer<Workload>, "get" | "whenSynced">>;
}

/** Finds what a pod is a copy of. */
export class WorkloadSelectors {
  readonly #sources: WorkloadSources;
  readonly #services: NamespaceIndex<Stored<Service>>;

  constructor(sources: WorkloadSources) {
    this.#sources = sources;
    this.#services = indexByNamespace(sources.services);
  }

  /** Ends the subscriptions. */
  close(): void {
    this.#services.close();
  }

  /** See {@link Snapshot.workloadSelector}. */
  selectorOf(pod: StoredPod): LabelMatcher | undefined {
    const { namespace = "", labels } = pod.metadata;
    const requirements = this.#ownerRequirements(pod);
    for (const { spec } of this.#services.in(namespace))
      // A Service without a selector selects nothing.
      if (spec?.selector !== undefined && matchesMap(spec.selector, labels))
        requirements.push(...selectorRequirements({ matchLabels: spec.selector }));
    return requirements.length === 0 ? undefined : requirementsMatcher(requirements);
  }

  #ownerRequirements({ metadata }: StoredPod): Requirement[] {
    const owner = metadata.ownerReferences?.find(({ controller }) => controller === true);
    if (owner === undefined) return [];
    const key = `${metadata.namespace ?? ""}/${owner.name}`;
    const kind = `${owner.apiVersion}/${owner.kind}`;
    const { replicationControllers, owners } = this.#sources;
    const selector =
      kind === "v1/ReplicationController"
        ? { matchLabels: replicationControllers.get(key)?.spec?.selector }
        : owners.get(kind)?.get(key)?.spec?.selector;
    return [...selectorRequirements(selector ?? {})];
  }
}
