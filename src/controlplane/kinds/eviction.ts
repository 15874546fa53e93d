import { badRequest, conflict, forbidden, notFound, StatusError } from "../status-error.ts";
import type { CustomSubresource, JsonObject, SubresourceRequest } from "../types.ts";
import {
  ensureRecord,
  int,
  list,
  mapOf,
  metadataOf,
  nameOf,
  record,
  records,
  text,
} from "./access.ts";
import { setCondition } from "./condition.ts";
import { isUsableSelector, selectorMatches } from "./label-selector.ts";

const pods = { plural: "pods", kind: "Pod", group: "" };
const budgets = "poddisruptionbudgets.policy";
/** Evictions that the controller of budgets has not confirmed yet. */
const maxDisruptedPods = 2000;

function tooManyRequests(cause: string, retryAfterSeconds?: number): StatusError {
  return new StatusError(
    429,
    "TooManyRequests",
    "Cannot evict pod as it would violate the pod's disruption budget.",
    {
      causes: [{ reason: "DisruptionBudget", message: cause }],
      ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
    },
  );
}

/** Not running yet, or on its way out: its loss disrupts nobody. */
function ignoresBudgets(pod: Readonly<JsonObject>): boolean {
  return (
    ["Succeeded", "Failed", "Pending"].includes(text(record(pod["status"])["phase"])) ||
    metadataOf(pod)["deletionTimestamp"] !== undefined
  );
}

function isReady(pod: Readonly<JsonObject>): boolean {
  return records(record(pod["status"])["conditions"]).some(
    ({ type, status }) => type === "Ready" && status === "True",
  );
}

function whyNone(name: string, status: Readonly<JsonObject>): string {
  const condition = records(status["conditions"]).find(({ type }) => type === "DisruptionAllowed");
  const message = condition?.["status"] === "False" ? text(condition["message"]) : "";
  const reason = text(condition?.["reason"]);
  const start = `The disruption budget ${name}`;
  if (message !== "" && reason === "SyncFailed")
    return `${start} does not allow evicting pods currently because it failed sync: ${message}`;
  const desired = int(status["desiredHealthy"]) ?? 0;
  const current = int(status["currentHealthy"]) ?? 0;
  if (current <= desired)
    return `${start} needs ${desired} healthy pods and has ${current} currently`;
  return message === ""
    ? `${start} does not allow evicting pods currently`
    : `${start} does not allow evicting pods currently (${reason}): ${message}`;
}

/** @throws {StatusError} 429 when the budget allows no eviction now. */
function checkBudget(budget: Readonly<JsonObject>): void {
  const name = nameOf(budget);
  const status = record(budget["status"]);
  const generation = int(metadataOf(budget)["generation"]) ?? 0;
  if ((int(status["observedGeneration"]) ?? 0) < generation)
    throw tooManyRequests(
      `The disruption budget ${name} is still being processed by the server.`,
      10,
    );
  if (Object.keys(record(status["disruptedPods"])).length > maxDisruptedPods)
    throw forbidden(
      { plural: "poddisruptionbudget", kind: "PodDisruptionBudget", group: "policy" },
      name,
      "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
    );
  if ((int(status["disruptionsAllowed"]) ?? 0) <= 0) throw tooManyRequests(whyNone(name, status));
}

/**
 * Takes one disruption from the pod's budget; the controller must not count the pod as healthy from now on.
 *
 * @throws {StatusError} 429 when there is none to take, 500 when the pod has several budgets.
 */
function takeDisruption(
  request: SubresourceRequest,
  pod: Readonly<JsonObject>,
  dryRun: boolean,
): void {
  const { registry, namespace, context } = request;
  const labels = mapOf(metadataOf(pod)["labels"]);
  const [budget, another] = [...registry.list(budgets, namespace)].filter((each) => {
    const selector = record(each["spec"])["selector"];
    return isUsableSelector(selector) && selectorMatches(selector, labels);
  });
  if (budget === undefined) return;
  if (another !== undefined)
    throw new StatusError(
      500,
      "InternalError",
      "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
    );
  const desired = int(record(budget["status"])["desiredHealthy"]) ?? 0;
  const healthy = int(record(budget["status"])["currentHealthy"]) ?? 0;
  if (!isReady(pod)) {
    if (record(budget["spec"])["unhealthyPodEvictionPolicy"] === "AlwaysAllow") return;
    // It is not counted as healthy, and the others are enough.
    if (desired > 0 && healthy >= desired) return;
  }
  checkBudget(budget);
  if (dryRun) return;
  registry.update(
    budgets,
    { namespace, name: nameOf(budget) },
    (current) => {
      const status = ensureRecord(current, "status");
      status["disruptionsAllowed"] = (int(status["disruptionsAllowed"]) ?? 1) - 1;
      const time = new Date(context.now).toISOString().replace(/\.\d+Z$/, "Z");
      ensureRecord(status, "disruptedPods")[nameOf(pod)] = time;
      return current;
    },
    { context, subresource: "status", system: true },
  );
}

/** @throws {StatusError} 409 when the pod is not the one that was meant. */
function checkPreconditions(pod: Readonly<JsonObject>, preconditions: Readonly<JsonObject>): void {
  const target = { plural: "Pod", kind: "Pod", group: "" };
  const { uid, resourceVersion } = metadataOf(pod);
  const wantedUID = text(preconditions["uid"]);
  if (wantedUID !== "" && wantedUID !== uid)
    throw conflict(
      target,
      nameOf(pod),
      `the UID in the precondition (${wantedUID}) does not match the UID in record (${text(uid)}). The object might have been deleted and then recreated`,
    );
  const wantedVersion = text(preconditions["resourceVersion"]);
  if (wantedVersion !== "" && wantedVersion !== resourceVersion)
    throw conflict(
      target,
      nameOf(pod),
      `the ResourceVersion in the precondition (${wantedVersion}) does not match the ResourceVersion in record (${text(resourceVersion)}). The object might have been modified`,
    );
}

/** Nothing in here waits, so that no other request can come between the checks and the deletion. */
function evict(request: SubresourceRequest): JsonObject {
  const { registry, namespace, name, context } = request;
  const body = request.body ?? {};
  const named = nameOf(body);
  if (named !== "" && named !== name)
    throw badRequest("name in URL does not match name in Eviction object");
  const pod = registry.get("pods", namespace, name);
  if (pod === undefined) throw notFound(pods, name);
  const options = record(body["deleteOptions"]);
  const dryRun = context.dryRun || list(options["dryRun"]).length > 0;
  checkPreconditions(pod, record(options["preconditions"]));
  if (!ignoresBudgets(pod)) takeDisruption(request, pod, dryRun);
  if (!dryRun) {
    const condition = {
      type: "DisruptionTarget",
      status: "True",
      reason: "EvictionByEvictionAPI",
      message: "Eviction API: evicting",
    };
    registry.update(
      "pods",
      { namespace, name },
      (current) => {
        setCondition(ensureRecord(current, "status"), condition, context.now);
        return current;
      },
      { context, subresource: "status", system: true },
    );
    registry.delete(
      "pods",
      { namespace, name },
      {
        gracePeriodSeconds: int(options["gracePeriodSeconds"]),
        propagationPolicy: undefined,
        uid: text(metadataOf(pod)["uid"]),
        resourceVersion: undefined,
      },
      context,
    );
  }
  return { kind: "Status", apiVersion: "v1", metadata: {}, status: "Success", code: 201 };
}

/** pods/eviction: a deletion that asks the pod's PodDisruptionBudget first. */
export const evictionSubresource: CustomSubresource = {
  kind: "custom",
  verbs: ["create"],
  gvk: { group: "policy", version: "v1", kind: "Eviction" },
  handle: evict,
};
