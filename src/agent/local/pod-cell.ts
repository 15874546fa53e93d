import type {
  ContainerStateTerminated,
  ContainerStatus,
  Pod,
  PodStatus,
} from "../../api/types.gen.ts";

/** What `kubectl get pods` shows of a pod. */
export interface PodCell {
  /** Such as `Running`, `Init:0/1`, `CrashLoopBackOff`, `Terminating`. */
  readonly status: string;
  readonly readyContainers: number;
  readonly restarts: number;
}

function conditionIsTrue({ conditions }: PodStatus, type: string): boolean {
  return conditions?.some((each) => each.type === type && each.status === "True") === true;
}

/** `Error`, or `Signal:9` or `ExitCode:1` of an end without a reason. */
function endWord({ exitCode, reason = "", signal = 0 }: ContainerStateTerminated): string {
  if (reason !== "") return reason;
  return signal === 0 ? `ExitCode:${exitCode}` : `Signal:${signal}`;
}

/** Why an init container still holds the pod back; undefined when it does not. */
function initWord(
  { started, state }: ContainerStatus,
  sidecar: boolean,
  progress: string,
): string | undefined {
  const ended = state?.terminated;
  if (ended?.exitCode === 0 || (sidecar && started === true)) return undefined;
  if (ended !== undefined) return `Init:${endWord(ended)}`;
  const waiting = state?.waiting?.reason ?? "";
  return `Init:${waiting === "" || waiting === "PodInitializing" ? progress : waiting}`;
}

interface Tally {
  status: string;
  readyContainers: number;
  restarts: number;
}

interface InitTally extends Tally {
  readonly initializing: boolean;
  readonly sidecarRestarts: number;
}

function tallyInit(
  { spec }: Pod,
  { initContainerStatuses = [] }: PodStatus,
  word: string,
): InitTally {
  const inits = spec?.initContainers ?? [];
  const tally: Tally = { status: word, readyContainers: 0, restarts: 0 };
  let sidecarRestarts = 0;
  for (const [index, status] of initContainerStatuses.entries()) {
    const sidecar = inits.find(({ name }) => name === status.name)?.restartPolicy === "Always";
    tally.restarts += status.restartCount;
    if (sidecar) sidecarRestarts += status.restartCount;
    const held = initWord(status, sidecar, `${index}/${inits.length}`);
    if (held !== undefined) return { ...tally, status: held, initializing: true, sidecarRestarts };
    if (sidecar && status.ready && status.started === true) tally.readyContainers += 1;
  }
  return { ...tally, initializing: false, sidecarRestarts };
}

function tallyContainers(status: PodStatus, init: InitTally): Tally {
  const tally: Tally = { ...init, restarts: init.sidecarRestarts };
  let running = false;
  for (const { ready, restartCount, state } of (status.containerStatuses ?? []).toReversed()) {
    tally.restarts += restartCount;
    const waiting = state?.waiting?.reason ?? "";
    if (waiting !== "") tally.status = waiting;
    else if (state?.terminated !== undefined) tally.status = endWord(state.terminated);
    else if (ready && state?.running !== undefined) {
      running = true;
      tally.readyContainers += 1;
    }
  }
  if (tally.status === "Completed" && running)
    tally.status = conditionIsTrue(status, "Ready") ? "Running" : "NotReady";
  return tally;
}

function tallyPod(pod: Pod, status: PodStatus): Tally {
  const { conditions = [], phase = "", reason = "" } = status;
  const gated = conditions.some(
    (each) => each.type === "PodScheduled" && each.reason === "SchedulingGated",
  );
  const init = tallyInit(pod, status, gated ? "SchedulingGated" : reason === "" ? phase : reason);
  const initialized = !init.initializing || conditionIsTrue(status, "Initialized");
  const tally = initialized ? tallyContainers(status, init) : init;
  if (pod.metadata?.deletionTimestamp === undefined) return tally;
  if (reason === "NodeLost") return { ...tally, status: "Unknown" };
  if (phase === "Succeeded" || phase === "Failed") return tally;
  return { ...tally, status: "Terminating" };
}

/** The cells Ready, Status and Restarts of `kubectl get pods`, from a status that the server may not have yet. */
export function podCell(pod: Pod, status: PodStatus): PodCell {
  const { readyContainers, restarts, status: word } = tallyPod(pod, status);
  return { status: word, readyContainers, restarts };
}
