import type {
  ContainerStatus,
  PodFailurePolicy,
  PodFailurePolicyOnExitCodesRequirement,
  SuccessPolicy,
} from "../../../api/types.gen.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import type { Intervals } from "./intervals.ts";
import { countCommon, countIndexes, parseIntervals } from "./intervals.ts";

/** What a pod's failure means (KEP-3329). */
export interface FailureVerdict {
  /** Undefined when no rule matched. */
  readonly action: "Ignore" | "FailIndex" | "Count" | "FailJob" | undefined;
  /** Whether the failure counts towards the limits. */
  readonly counts: boolean;
  /** For FailJob: what the Job's condition says. */
  readonly message?: string;
}

function exitCodeMatches(
  requirement: PodFailurePolicyOnExitCodesRequirement,
  { name, state }: ContainerStatus,
): boolean {
  const code = state?.terminated?.exitCode;
  if (code === undefined || code === 0) return false;
  if (requirement.containerName !== undefined && requirement.containerName !== name) return false;
  return requirement.values.includes(code) === (requirement.operator === "In");
}

/** The first rule of the policy that matches decides. */
export function judgeFailure(policy: PodFailurePolicy | undefined, pod: StoredPod): FailureVerdict {
  const { status, metadata } = pod;
  const about = `${metadata.namespace ?? ""}/${metadata.name}`;
  for (const [index, { action, onExitCodes, onPodConditions }] of (policy?.rules ?? []).entries()) {
    const ending = `matching ${action} rule at index ${index}`;
    let message: string | undefined;
    if (onExitCodes !== undefined) {
      const container = [
        ...(status?.containerStatuses ?? []),
        ...(status?.initContainerStatuses ?? []),
      ].find((each) => exitCodeMatches(onExitCodes, each));
      if (container !== undefined) {
        const code = container.state?.terminated?.exitCode ?? 0;
        message = `Container ${container.name} for pod ${about} failed with exit code ${code} ${ending}`;
      }
    } else {
      const condition = status?.conditions?.find((each) =>
        onPodConditions?.some(
          (pattern) => pattern.type === each.type && (pattern.status ?? "True") === each.status,
        ),
      );
      if (condition !== undefined)
        message = `Pod ${about} has condition ${condition.type} ${ending}`;
    }
    if (message === undefined) continue;
    if (action === "FailJob") return { action, counts: true, message };
    return { action, counts: action !== "Ignore" };
  }
  return { action: undefined, counts: true };
}

/** What the Job's condition says when a rule of the success policy is met (KEP-3998). */
export function metSuccessRule(
  policy: SuccessPolicy | undefined,
  completions: number,
  succeeded: Intervals,
): string | undefined {
  if (policy === undefined || succeeded.length === 0) return undefined;
  const met = policy.rules.findIndex(({ succeededCount, succeededIndexes }) => {
    if (succeededIndexes === undefined)
      return succeededCount !== undefined && countIndexes(succeeded) >= succeededCount;
    const wanted = parseIntervals(succeededIndexes, completions);
    if (wanted.length === 0) return false;
    const common = countCommon(wanted, succeeded);
    return (
      common === countIndexes(wanted) || (succeededCount !== undefined && common >= succeededCount)
    );
  });
  return met < 0 ? undefined : `Matched rules at index ${met}`;
}
