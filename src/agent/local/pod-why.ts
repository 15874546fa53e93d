import type { ContainerStatus, Pod, PodStatus } from "../../api/types.gen.ts";
import {
  allContainers,
  containerFieldPath,
  isTerminalPhase,
  type PodContainer,
} from "../../kubelet/spec/containers.ts";
import type { ImagePull } from "../../kubelet/types.ts";
import type { RecentEvent } from "./recent-events.ts";

/** What there is to explain a pod with. */
export interface WhyInput {
  readonly pod: Pod;
  readonly status: PodStatus;
  /** Of this pod, the newest last. */
  readonly events: readonly RecentEvent[];
  /** Images that are being pulled for it. */
  readonly pulling: readonly Pick<ImagePull, "image" | "queued">[];
}

interface Part {
  readonly entry: PodContainer;
  readonly status: ContainerStatus | undefined;
}

const imageReasons: ReadonlySet<string> = new Set([
  "ErrImagePull",
  "ImagePullBackOff",
  "ErrImageNeverPull",
  "InvalidImageName",
  "ImageInspectError",
]);
const progressReasons: ReadonlySet<string> = new Set(["ContainerCreating", "PodInitializing"]);

function nameOf({ entry: { container, role } }: Part): string {
  const kind = role === "regular" ? "container" : `${role} container`;
  return `${role === "sidecar" ? "sidecar" : kind} "${container.name}"`;
}

function parts(pod: Pod, status: PodStatus): readonly Part[] {
  const known = new Map(
    [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])].map((each) => [
      each.name,
      each,
    ]),
  );
  return allContainers(pod)
    .filter(({ role }) => role !== "ephemeral")
    .map((entry) => ({ entry, status: known.get(entry.container.name) }));
}

function colon(text: string, more: string | undefined): string {
  // The engine's own status says less than its words.
  const cause = (more ?? "")
    .trim()
    .replace(/ \(HTTP \d+\)$/, "")
    .replace(/\.$/, "");
  return cause === "" ? text : `${text}: ${cause}`;
}

/** What it said last, cut to its last line: a stack trace is no sentence. */
function lastLine(text: string | undefined): string {
  return (text ?? "").trim().split("\n").at(-1)?.trim() ?? "";
}

/** `exit code 1`, `signal 9`, `more memory than its limit of 64Mi (OOMKilled)`. */
function endWords(
  { entry: { container } }: Part,
  ended: NonNullable<ContainerStatus["state"]>["terminated"],
): string {
  const { exitCode = 0, message, reason = "", signal = 0 } = ended ?? {};
  if (reason === "OOMKilled") {
    const limit = container.resources?.limits?.["memory"];
    const which = limit === undefined ? "there was" : `its limit of ${limit}`;
    return `killed for using more memory than ${which} (OOMKilled)`;
  }
  const how = signal === 0 ? `exit code ${exitCode}` : `signal ${signal}`;
  const named =
    reason === "" || reason === "Error" || reason === "Completed" ? how : `${how} (${reason})`;
  return colon(named, lastLine(message));
}

/** Of what the engine says when it cannot start a container, what is about the container. */
function startWords(text: string): string {
  return text
    .replace(/^Error: /, "")
    .replace(/^.*unable to start container process: /s, "")
    .replace(/(?:: unknown)?(?: \(HTTP \d+\))?$/, "");
}

/** How it ended last; where it never ran, why. */
function lastEnd(
  { events }: WhyInput,
  part: Part,
): NonNullable<ContainerStatus["lastState"]>["terminated"] {
  const ended = part.status?.lastState?.terminated;
  if (ended?.reason !== "ContainerCannotRun") return ended;
  const path = containerFieldPath(part.entry);
  const told = events.findLast((each) => each.reason === "Failed" && each.fieldPath === path);
  return { ...ended, message: startWords(ended.message || (told?.message ?? "")) };
}

function crashWords(input: WhyInput, part: Part, message: string | undefined): string {
  const ended = lastEnd(input, part);
  const text = colon(`${nameOf(part)} keeps ending`, ended && endWords(part, ended));
  const delay = /back-off (\S+) restarting/.exec(message ?? "")?.[1];
  return delay === undefined ? text : `${text}; it is started again ${delay} after its end`;
}

function imageWords(part: Part, reason: string, message: string | undefined): string {
  const image = part.entry.container.image ?? "";
  // Said in other words already.
  const cause = (message ?? "").replace(/^Back-off pulling image ".*?": (?:ErrImagePull: )?/, "");
  switch (reason) {
    case "InvalidImageName":
      return `image "${image}" of ${nameOf(part)} is not a name that an image can have`;
    case "ErrImageNeverPull":
      return `image "${image}" of ${nameOf(part)} is not on this machine, and its imagePullPolicy is Never`;
    case "ImageInspectError":
      return colon(`image "${image}" of ${nameOf(part)} cannot be looked at`, cause);
    default:
      return colon(`image "${image}" of ${nameOf(part)} cannot be pulled`, cause);
  }
}

/** The newest event, if it tells of trouble: an older one may be over. */
function trouble({ events }: WhyInput): RecentEvent | undefined {
  const newest = events.at(-1);
  return newest?.type === "Warning" ? newest : undefined;
}

function beginningWords(input: WhyInput, part: Part): string {
  const own = part.entry.container.image ?? "";
  const pull = input.pulling.find(({ image }) => image === own) ?? input.pulling[0];
  if (pull !== undefined) {
    const how = pull.queued ? "waits until others are pulled" : "is being pulled";
    return `image "${pull.image}" ${how}`;
  }
  const event = trouble(input);
  if (event !== undefined) return `${nameOf(part)} waits, ${event.reason}: ${event.message.trim()}`;
  return `${nameOf(part)} is being started`;
}

function waitingWords(input: WhyInput, part: Part): string {
  const { message, reason = "" } = part.status?.state?.waiting ?? {};
  if (reason === "" || progressReasons.has(reason)) return beginningWords(input, part);
  if (reason === "CrashLoopBackOff") return crashWords(input, part, message);
  if (imageReasons.has(reason)) return imageWords(part, reason, message);
  const verb = reason === "CreateContainerConfigError" ? "made" : "started";
  return colon(`${nameOf(part)} cannot be ${verb} (${reason})`, message);
}

function probeWords(input: WhyInput, part: Part): string {
  const { container } = part.entry;
  const isStarted = part.status?.started !== false;
  const kind = isStarted ? "readiness" : "startup";
  const probe = isStarted ? container.readinessProbe : container.startupProbe;
  if (probe === undefined) return `${nameOf(part)} runs and is not ready`;
  const path = containerFieldPath(part.entry);
  const failure = input.events.findLast(
    ({ fieldPath, message, reason }) =>
      reason === "Unhealthy" && fieldPath === path && message.toLowerCase().startsWith(kind),
  );
  if (failure === undefined) return `${nameOf(part)} has not passed its ${kind} probe yet`;
  const cause = failure.message.replace(/^\w+ probe (?:failed|errored[^:]*):\s*/i, "");
  return colon(`${nameOf(part)} fails its ${kind} probe`, lastLine(cause));
}

/** Why one container holds the pod back; undefined when it does not. */
function containerWords(input: WhyInput, part: Part): string | undefined {
  const { entry, status } = part;
  const { running, terminated } = status?.state ?? {};
  if (entry.role === "init") {
    if (terminated?.exitCode === 0) return undefined;
    if (running !== undefined) return `${nameOf(part)} is at work`;
  } else if (entry.role === "sidecar" && status?.started === true) return undefined;
  else if (status?.ready === true) return undefined;
  if (terminated !== undefined) return `${nameOf(part)} ended with ${endWords(part, terminated)}`;
  return running === undefined ? waitingWords(input, part) : probeWords(input, part);
}

function deletionWords(input: WhyInput): string {
  const { metadata } = input.pod;
  const alive = parts(input.pod, input.status).filter(
    ({ status }) => status?.state?.running !== undefined,
  );
  const grace = metadata?.deletionGracePeriodSeconds;
  const limit = grace === undefined ? "" : ` (${grace} s at most)`;
  const waits =
    alive.length === 0
      ? "being deleted"
      : `being deleted, waits for ${alive.map(nameOf).join(", ")} to end${limit}`;
  const event = trouble(input);
  if (event?.reason === "FailedKillPod") return colon(waits, event.message);
  const finalizers = metadata?.finalizers ?? [];
  return alive.length > 0 || finalizers.length === 0
    ? waits
    : `being deleted, waits for whoever set finalizer ${finalizers.join(", ")}`;
}

function failureWords({ pod, status }: WhyInput): string {
  const { message = "", reason = "" } = status;
  if (message !== "") return colon(reason === "" ? "failed" : `failed, ${reason}`, message);
  const failed = parts(pod, status).find(
    (part) => (part.status?.state?.terminated?.exitCode ?? 0) !== 0,
  );
  const ended = failed?.status?.state?.terminated;
  if (failed !== undefined && ended !== undefined)
    return `${nameOf(failed)} ended with ${endWords(failed, ended)}`;
  return reason === "" ? "failed" : `failed, ${reason}`;
}

function unscheduledWords({ conditions = [] }: PodStatus): string | undefined {
  const scheduled = conditions.find(({ type }) => type === "PodScheduled");
  if (scheduled?.status !== "False") return undefined;
  if (scheduled.reason === "SchedulingGated")
    return colon("it is not to be scheduled yet", scheduled.message);
  return colon("no node takes it", scheduled.message);
}

/** True while nothing has asked for the pod's deletion and its condition Ready is True. */
export function isReady({ metadata }: Pod, { conditions = [] }: PodStatus): boolean {
  return (
    metadata?.deletionTimestamp === undefined &&
    conditions.some(({ type, status }) => type === "Ready" && status === "True")
  );
}

/**
 * One sentence on why a pod is not Ready, with the container that holds it back and the cause; empty when it is, and when
 * it has done its work.
 */
export function podWhy(input: WhyInput): string {
  const { pod, status } = input;
  if (isReady(pod, status)) return "";
  if (pod.metadata?.deletionTimestamp !== undefined && !isTerminalPhase(status.phase))
    return deletionWords(input);
  if (status.phase === "Succeeded") return "";
  if (status.phase === "Failed") return failureWords(input);
  const unscheduled = unscheduledWords(status);
  if (unscheduled !== undefined) return unscheduled;
  // Init containers run before all others, so the first that holds the pod back is the cause.
  for (const part of parts(pod, status)) {
    const words = containerWords(input, part);
    if (words !== undefined) return words;
  }
  const ready = status.conditions?.find(({ type }) => type === "Ready");
  return ready?.message ?? trouble(input)?.message ?? "nothing has been heard of it yet";
}
