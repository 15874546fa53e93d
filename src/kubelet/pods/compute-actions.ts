import type { ContainerRecord, PodRecord, SandboxRecord } from "../../runtime/types.ts";
import {
  ephemeralContainers,
  initContainers,
  isHostNetwork,
  type PodContainer,
  podRestartPolicy,
  regularContainers,
} from "../spec/containers.ts";
import {
  hasInitialized,
  isRestartable,
  liveSandbox,
  newestSandbox,
  type ObservedPod,
  recordsOf,
} from "../status/observed.ts";
import { isRestartTrigger, restartsAllContainers } from "../status/restarting-all.ts";
import { type ContainerPlan, planContainer } from "./container-rules.ts";
import type { ActionsInput, PodAction } from "./pod-action.ts";

interface PodRule {
  /** The kubelet's behaviour that it stands for. */
  readonly name: string;
  /** Undefined when it does not apply: the next rule is asked. */
  plan(input: ActionsInput): readonly PodAction[] | undefined;
}

/** In order: the first that applies decides alone. What is decided per container is in `containerRules`. */
export const podRules: readonly PodRule[] = [
  { name: "RestartAllContainers: remove them all, keep the sandbox", plan: resetContainers },
  { name: "sandbox changed: all containers done", plan: endWithSandbox },
  { name: "sandbox changed: a new one", plan: replaceSandbox },
  { name: "sandbox without its network, or cut off from it", plan: setUpNetwork },
  { name: "older sandboxes and containers that run beside the newest", plan: killStrays },
  { name: "initialization failed", plan: endAfterInit },
  { name: "initialization goes on", plan: initialize },
  { name: "nothing left to run", plan: endAfterRun },
  { name: "containers of a running pod", plan: runContainers },
];

/**
 * Decides what to do next for a pod that is to run. Pure: the same input gives the same plan. After the plan was
 * carried out the caller looks again; an empty plan means that all is as it should be.
 */
export function computeActions(input: ActionsInput): readonly PodAction[] {
  for (const rule of podRules) {
    const actions = rule.plan(input);
    if (actions !== undefined) return actions;
  }
  return [];
}

const end: readonly PodAction[] = [{ kind: "endPod" }];

/** Kills and removes what is left, the ones whose exit asked for it last: as long as they are there, work is left. */
function resetContainers(input: ActionsInput): readonly PodAction[] | undefined {
  const { observed, pod, status } = input;
  if (!restartsAllContainers(pod, observed.record, status.conditions)) return undefined;
  const containers = new Map(
    [...initContainers(pod), ...regularContainers(pod)].map((entry) => [
      entry.container.name,
      entry.container,
    ]),
  );
  const doomed = observed.record.containers.filter(({ name }) => containers.has(name));
  const order = (record: ContainerRecord): number =>
    Number(isRestartTrigger(containers.get(record.name), record)) * 2 +
    Number((pod.spec?.initContainers ?? []).some(({ name }) => name === record.name));
  return doomed
    .toSorted((a, b) => order(a) - order(b))
    .flatMap((record): readonly PodAction[] => [
      ...(isAlive(record)
        ? [{ kind: "killContainer", record, cause: "restartAll", message: "killing" } as const]
        : []),
      { kind: "removeContainer", record },
    ]);
}

function isAlive({ state }: ContainerRecord): boolean {
  return state.kind === "running" || state.kind === "unknown";
}

/** Without a usable sandbox, a pod whose containers are all done ends. */
function endWithSandbox({ observed, pod }: ActionsInput): readonly PodAction[] | undefined {
  const { record } = observed;
  if (liveSandbox(pod, record) !== undefined) return undefined;
  const regular = regularContainers(pod);
  const ran = regular.filter(({ container }) => recordsOf(record, container.name).length > 0);
  const toRun = regular.filter((entry) => {
    const [last] = recordsOf(record, entry.container.name);
    // What still runs there is killed with its sandbox, which does not mean that it was done.
    return last?.state.kind === "running" || isRestartable(pod, entry, last);
  });
  const once = podRestartPolicy(pod) === "Never" && record.containers.length > 0;
  const done = once || (toRun.length === 0 && ran.length > 0);
  return done ? end : undefined;
}

function replaceSandbox({ observed, pod }: ActionsInput): readonly PodAction[] | undefined {
  const { record } = observed;
  if (liveSandbox(pod, record) !== undefined) return undefined;
  const newest = newestSandbox(record);
  return [
    ...sandboxKills(record.containers),
    ...[...heldSandboxes(observed, record.sandboxes), ...vanishedSandboxes(record)].map(
      (sandboxID): PodAction => ({ kind: "stopSandbox", sandboxID }),
    ),
    {
      kind: "createSandbox",
      attempt: newest === undefined ? 0 : newest.metadata.attempt + 1,
      recreated: newest !== undefined || record.containers.length > 0,
    },
  ];
}

/** Those that run, or have died with an address that the pod would lack elsewhere. */
function heldSandboxes(
  { addresses }: ObservedPod,
  sandboxes: readonly SandboxRecord[],
): readonly string[] {
  return sandboxes
    .filter(({ id, ready }) => ready || addresses(id) !== undefined)
    .map(({ id }) => id);
}

/** Removed by somebody else: the network still holds an address for them. */
function vanishedSandboxes({ containers, sandboxes }: PodRecord): readonly string[] {
  const known = new Set(sandboxes.map(({ id }) => id));
  return [...new Set(containers.map(({ sandboxID }) => sandboxID))].filter((id) => !known.has(id));
}

function sandboxKills(records: readonly ContainerRecord[]): readonly PodAction[] {
  return records.filter(isAlive).map((record) => ({
    kind: "killContainer",
    record,
    cause: "sandbox",
    message: "Pod sandbox changed, it will be killed and re-created.",
  }));
}

function setUpNetwork({ observed, pod }: ActionsInput): readonly PodAction[] | undefined {
  const sandbox = liveSandbox(pod, observed.record);
  if (sandbox === undefined || isHostNetwork(pod)) return undefined;
  const missing = observed.addresses(sandbox.id) === undefined;
  return missing || observed.disconnected?.(sandbox.id) === true
    ? [{ kind: "setUpNetwork", sandbox }]
    : undefined;
}

/** What somebody else started again beside its successor would write to the same volumes. */
function killStrays({ observed, pod }: ActionsInput): readonly PodAction[] | undefined {
  const { containers, sandboxes } = observed.record;
  const sandbox = liveSandbox(pod, observed.record);
  const inOthers = containers.filter(({ sandboxID }) => sandboxID !== sandbox?.id);
  const twins = containers.filter(
    (container) =>
      container.sandboxID === sandbox?.id &&
      recordsOf(observed.record, container.name)[0]?.id !== container.id,
  );
  const kills: readonly PodAction[] = [
    ...sandboxKills(inOthers),
    ...twins.filter(isAlive).map((record): PodAction => ({
      kind: "killContainer",
      record,
      cause: "stray",
      message: `Stopping container ${record.name}`,
    })),
    ...heldSandboxes(observed, sandboxes.slice(1)).map((sandboxID): PodAction => ({
      kind: "stopSandbox",
      sandboxID,
    })),
  ];
  return kills.length > 0 ? kills : undefined;
}

/** Plans of the init containers and sidecars that count now, in spec order; the last may be a pending one. */
function initPlans(input: ActionsInput, sandbox: SandboxRecord): readonly ContainerPlan[] {
  const { observed, pod } = input;
  const initialized = hasInitialized(pod, observed, sandbox.id);
  const entries = initContainers(pod);
  const here = observed.record.containers.filter(({ sandboxID }) => sandboxID === sandbox.id);
  const latest = (entry: PodContainer): ContainerRecord | undefined =>
    here.find(({ name }) => name === entry.container.name);
  // Records of finished init containers may have been pruned; a later one that ran proves them done.
  const lastSeen = entries.findLastIndex((entry) => latest(entry) !== undefined);
  const plans: ContainerPlan[] = [];
  for (const [index, entry] of entries.entries()) {
    const last = latest(entry);
    const proven = initialized || (last === undefined && index < lastSeen);
    if (proven && entry.role === "init") continue;
    const plan = planContainer({ input, entry, sandbox, last });
    plans.push(plan);
    if (plan.progress === "failed" || (plan.progress === "pending" && !initialized)) break;
  }
  return plans;
}

function plansOf(
  input: ActionsInput,
  entries: readonly PodContainer[],
  sandbox: SandboxRecord,
): readonly ContainerPlan[] {
  return entries.map((entry) => {
    const [last] = recordsOf(input.observed.record, entry.container.name);
    return planContainer({ input, entry, sandbox, last });
  });
}

interface Stage {
  readonly ephemeral: readonly ContainerPlan[];
  readonly init: readonly ContainerPlan[];
  readonly initialized: boolean;
  readonly regular: readonly ContainerPlan[];
}

function stageOf(input: ActionsInput): Stage | undefined {
  const { observed, pod } = input;
  const sandbox = liveSandbox(pod, observed.record);
  if (sandbox === undefined) return undefined;
  return {
    ephemeral: plansOf(input, ephemeralContainers(pod), sandbox),
    init: initPlans(input, sandbox),
    initialized: hasInitialized(pod, observed, sandbox.id),
    regular: plansOf(input, regularContainers(pod), sandbox),
  };
}

function actionsOf(plans: readonly ContainerPlan[]): readonly PodAction[] {
  return plans.flatMap(({ actions }) => actions);
}

function endAfterInit(input: ActionsInput): readonly PodAction[] | undefined {
  const failed = stageOf(input)?.init.some(({ progress }) => progress === "failed");
  return failed === true ? end : undefined;
}

function initialize(input: ActionsInput): readonly PodAction[] | undefined {
  const stage = stageOf(input);
  if (stage === undefined || stage.initialized) return undefined;
  if (!stage.init.some(({ progress }) => progress === "pending")) return undefined;
  return actionsOf([...stage.ephemeral, ...stage.init]);
}

function endAfterRun(input: ActionsInput): readonly PodAction[] | undefined {
  const over = stageOf(input)?.regular.every(
    ({ progress }) => progress === "succeeded" || progress === "failed",
  );
  return over === true ? end : undefined;
}

function runContainers(input: ActionsInput): readonly PodAction[] | undefined {
  const stage = stageOf(input);
  if (stage === undefined) return undefined;
  return actionsOf([...stage.ephemeral, ...stage.init, ...stage.regular]);
}
