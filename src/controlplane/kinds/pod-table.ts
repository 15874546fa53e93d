import type { JsonObject, TableDefinition } from "../types.ts";
import { int, metadataOf, nameOf, record, records, text } from "./access.ts";
import { age, ageColumn, column, humanDuration, nameColumn } from "./table.ts";

interface Tally {
  reason: string;
  ready: number;
  restarts: number;
  /** End of the last terminated run, milliseconds since the epoch; 0 when none ended. */
  lastRestart: number;
}

function finished(status: Readonly<JsonObject>): number {
  const ended = record(record(status["lastState"])["terminated"])["finishedAt"];
  const time = Date.parse(text(ended));
  return Number.isNaN(time) ? 0 : time;
}

/** `Signal:9` or `ExitCode:1` of a terminated state without a reason. */
function exitText(terminated: Readonly<JsonObject>): string {
  const signal = int(terminated["signal"]) ?? 0;
  return signal === 0 ? `ExitCode:${int(terminated["exitCode"]) ?? 0}` : `Signal:${signal}`;
}

function conditionIsTrue(status: Readonly<JsonObject>, type: string): boolean {
  return records(status["conditions"]).some(
    (condition) => condition["type"] === type && condition["status"] === "True",
  );
}

/** Why this init container still holds the pod back, or undefined when it does not. */
function initReason(
  status: Readonly<JsonObject>,
  sidecar: boolean,
  progress: string,
): string | undefined {
  const state = record(status["state"]);
  const terminated = state["terminated"] === undefined ? undefined : record(state["terminated"]);
  const waiting = text(record(state["waiting"])["reason"]);
  if (terminated !== undefined && terminated["exitCode"] === 0) return undefined;
  if (sidecar && status["started"] === true) return undefined;
  if (terminated !== undefined) {
    const reason = text(terminated["reason"]);
    return `Init:${reason === "" ? exitText(terminated) : reason}`;
  }
  return `Init:${waiting !== "" && waiting !== "PodInitializing" ? waiting : progress}`;
}

interface InitTally extends Tally {
  readonly initializing: boolean;
  readonly sidecarRestarts: number;
  readonly lastSidecarRestart: number;
}

function tallyInit(pod: Readonly<JsonObject>, phase: string): InitTally {
  const spec = record(pod["spec"]);
  const inits = records(spec["initContainers"]);
  const tally = { reason: phase, ready: 0, restarts: 0, lastRestart: 0 };
  let sidecarRestarts = 0;
  let lastSidecarRestart = 0;
  let initializing = false;
  for (const [index, status] of records(record(pod["status"])["initContainerStatuses"]).entries()) {
    const own = inits.find((container) => container["name"] === status["name"]);
    const sidecar = own?.["restartPolicy"] === "Always";
    const count = int(status["restartCount"]) ?? 0;
    tally.restarts += count;
    tally.lastRestart = Math.max(tally.lastRestart, finished(status));
    if (sidecar) {
      sidecarRestarts += count;
      lastSidecarRestart = Math.max(lastSidecarRestart, finished(status));
    }
    const reason = initReason(status, sidecar, `${index}/${inits.length}`);
    if (reason === undefined) {
      if (sidecar && status["ready"] === true && status["started"] === true) tally.ready += 1;
      continue;
    }
    tally.reason = reason;
    initializing = true;
    break;
  }
  return { ...tally, initializing, sidecarRestarts, lastSidecarRestart };
}

function tallyContainers(pod: Readonly<JsonObject>, init: InitTally): Tally {
  const status = record(pod["status"]);
  const tally: Tally = {
    reason: init.reason,
    ready: init.ready,
    restarts: init.sidecarRestarts,
    lastRestart: init.lastSidecarRestart,
  };
  let running = false;
  for (const container of records(status["containerStatuses"]).toReversed()) {
    tally.restarts += int(container["restartCount"]) ?? 0;
    tally.lastRestart = Math.max(tally.lastRestart, finished(container));
    const state = record(container["state"]);
    const waiting = text(record(state["waiting"])["reason"]);
    if (waiting !== "") tally.reason = waiting;
    else if (state["terminated"] !== undefined) {
      const terminated = record(state["terminated"]);
      const reason = text(terminated["reason"]);
      tally.reason = reason === "" ? exitText(terminated) : reason;
    } else if (container["ready"] === true && state["running"] !== undefined) {
      running = true;
      tally.ready += 1;
    }
  }
  if (tally.reason === "Completed" && running) {
    tally.reason = conditionIsTrue(status, "Ready") ? "Running" : "NotReady";
  }
  return tally;
}

function tallyPod(pod: Readonly<JsonObject>): Tally {
  const status = record(pod["status"]);
  const phase = text(status["phase"]);
  let reason = text(status["reason"]) === "" ? phase : text(status["reason"]);
  const gated = records(status["conditions"]).some(
    (condition) =>
      condition["type"] === "PodScheduled" && condition["reason"] === "SchedulingGated",
  );
  if (gated) reason = "SchedulingGated";
  const init = tallyInit(pod, reason);
  const tally: Tally =
    !init.initializing || conditionIsTrue(status, "Initialized")
      ? tallyContainers(pod, init)
      : init;
  const deleting = metadataOf(pod)["deletionTimestamp"] !== undefined;
  if (!deleting) return tally;
  if (status["reason"] === "NodeLost") return { ...tally, reason: "Unknown" };
  const terminal = phase === "Succeeded" || phase === "Failed";
  return terminal ? tally : { ...tally, reason: "Terminating" };
}

/** The Status cell of `kubectl get pods`, such as `Running`, `Init:0/1`, `CrashLoopBackOff`. */
export function podDisplayStatus(pod: Readonly<JsonObject>): string {
  return tallyPod(pod).reason;
}

function orNone(value: string): string {
  return value === "" ? "<none>" : value;
}

function gates(pod: Readonly<JsonObject>): string {
  const wanted = records(record(pod["spec"])["readinessGates"]);
  if (wanted.length === 0) return "<none>";
  const status = record(pod["status"]);
  const met = wanted.filter((gate) => conditionIsTrue(status, text(gate["conditionType"])));
  return `${met.length}/${wanted.length}`;
}

export const podTable: TableDefinition = {
  columns: [
    nameColumn,
    column("Ready", "Containers that are ready, of all that run for the pod's life."),
    column("Status", "Phase of the pod, or what currently keeps it from running."),
    column("Restarts", "Restarts of all containers, and when the last one was."),
    ageColumn,
    column("IP", "Address of the pod.", true),
    column("Node", "Node the pod is bound to.", true),
    column("Nominated Node", "Node on which preemption makes room for the pod.", true),
    column("Readiness Gates", "Extra readiness conditions that are true, of all.", true),
  ],
  row(pod, now) {
    const spec = record(pod["spec"]);
    const status = record(pod["status"]);
    const tally = tallyPod(pod);
    const sidecars = records(spec["initContainers"]).filter(
      (container) => container["restartPolicy"] === "Always",
    );
    const total = records(spec["containers"]).length + sidecars.length;
    const restarts =
      tally.restarts !== 0 && tally.lastRestart !== 0
        ? `${tally.restarts} (${humanDuration(now - tally.lastRestart)} ago)`
        : String(tally.restarts);
    const ip = text(records(status["podIPs"])[0]?.["ip"]) || text(status["podIP"]);
    return [
      nameOf(pod),
      `${tally.ready}/${total}`,
      tally.reason,
      restarts,
      age(pod, now),
      orNone(ip),
      orNone(text(spec["nodeName"])),
      orNone(text(status["nominatedNodeName"])),
      gates(pod),
    ];
  },
};
