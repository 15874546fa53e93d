import type { Container, EnvVar, Pod, PodTemplateSpec } from "../../../api/types.gen.ts";
import type { PodOwner } from "../shared/pod-control.ts";
import { ownedPod } from "../shared/pod-control.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { indexAnnotations, indexFailures, trackingFinalizer } from "./pods.ts";
import { judgeFailure } from "./policies.ts";
import type { JobView } from "./view.ts";

const indexVariable = "JOB_COMPLETION_INDEX";
/** A generated name keeps so much of its prefix. */
const maxPrefix = 58;

function withIndexVariable(container: Container): Container {
  const env = container.env ?? [];
  if (env.some(({ name }) => name === indexVariable)) return container;
  const fieldPath = `metadata.labels['${indexAnnotations.completionIndex}']`;
  const variable: EnvVar = { name: indexVariable, valueFrom: { fieldRef: { fieldPath } } };
  return { ...container, env: [...env, variable] };
}

/** The failure counts that the new pod of an index inherits from the one it replaces. */
function failureAnnotations(
  job: JobView,
  replaced: StoredPod | undefined,
): Readonly<Record<string, string>> {
  if (job.backoffLimitPerIndex === undefined) return {};
  let [counted, ignored] = [0, 0];
  if (replaced !== undefined) {
    ({ counted, ignored } = indexFailures(replaced));
    if (judgeFailure(job.podFailurePolicy, replaced).counts) counted += 1;
    else ignored += 1;
  }
  return {
    [indexAnnotations.failureCount]: String(counted),
    ...(ignored === 0 ? {} : { [indexAnnotations.ignoredFailureCount]: String(ignored) }),
  };
}

function indexedTemplate(
  job: JobView,
  index: number,
  replaced: StoredPod | undefined,
): PodTemplateSpec {
  const { metadata, spec } = job.template;
  const mark = { [indexAnnotations.completionIndex]: String(index) };
  return {
    metadata: {
      ...metadata,
      annotations: { ...metadata?.annotations, ...mark, ...failureAnnotations(job, replaced) },
      labels: { ...metadata?.labels, ...mark },
    },
    spec: {
      ...spec,
      hostname: `${job.name}-${index}`,
      initContainers: spec?.initContainers?.map((each) => withIndexVariable(each)),
      containers: (spec?.containers ?? []).map((each) => withIndexVariable(each)),
    },
  };
}

function indexedPrefix(name: string, index: number): string {
  const ending = `-${index}-`;
  return name.slice(0, maxPrefix - ending.length) + ending;
}

/**
 * The next pod of a Job.
 *
 * @param index Undefined for Jobs without indexes.
 * @param replaced The failed pod of the same index, where failures are counted per index.
 */
export function jobPod(
  owner: PodOwner,
  job: JobView,
  index: number | undefined,
  replaced: StoredPod | undefined,
): Pod {
  const template = index === undefined ? job.template : indexedTemplate(job, index, replaced);
  const finalizers = new Set([...(template.metadata?.finalizers ?? []), trackingFinalizer]);
  return ownedPod(
    owner,
    { ...template, metadata: { ...template.metadata, finalizers: [...finalizers] } },
    index === undefined ? `${job.name}-` : indexedPrefix(job.name, index),
  );
}
