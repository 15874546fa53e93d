import { createInterface } from "node:readline/promises";
import { realpath } from "node:fs/promises";
import { dirname, join } from "node:path";

import { agentDefaults } from "../../config/agent-config.ts";
import { deadline, systemClock } from "../../lib/clock.ts";
import { SetupError } from "../../lib/errors.ts";
import { execResult } from "../../lib/exec.ts";
import type { Logger } from "../../lib/log.ts";
import { namesIn } from "../../lib/names-in.ts";
import { machineLockHolder } from "../instance-lock.ts";
import { engineContainers } from "../ledger/engine-list.ts";
import { machineTraces } from "../ledger/machine-traces.ts";
import {
  engineOf,
  type Engine,
  nodeOf,
  type NodeOfDirectory,
  type NodeTraces,
  tracesOf,
} from "../ledger/node-traces.ts";
import { ownEngine, stopOwnEngine } from "../ledger/own-engine.ts";
import { removeMadeDirectories } from "../ledger/own-kubeconfigs.ts";
import { ownNodeObject } from "../ledger/own-node-object.ts";
import { goneOf, lookAt, removeAll, type Trace, unionOf } from "../ledger/removal.ts";
import { checkRemovable, isProvablyOurs } from "../ledger/state-marker.ts";
import type { StateMode } from "../ledger/state-names.ts";
import { refuseOtherAgent, stopAgent } from "../ledger/stop-agent.ts";
import { ownUnits } from "../ledger/units.ts";
import type { OwnResource } from "../own-resources.ts";
import { checkMachine, engineTrouble } from "../preflight.ts";
import type { LogFormat } from "../stderr-logger.ts";
import type { Level } from "../../lib/log.ts";
import { remoraVersion } from "../version.ts";
import { removalStep } from "./down.ts";

/** Flags of `remora uninstall`. */
export interface UninstallFlags {
  /** Default: `/var/lib/remora` and `/var/lib/kubelet`, as far as they are ours, and that of a running agent. */
  readonly stateDir?: string;
  readonly rootDir?: string;
  readonly dryRun?: boolean;
  readonly yes?: boolean;
  readonly deleteVolumes?: boolean;
  readonly deleteImages?: boolean;
  readonly deleteNode?: boolean;
  readonly kubeconfig?: string;
  readonly packages?: boolean;
  readonly hostnameOverride?: string;
  readonly dockerSocket?: string;
  readonly withoutEngine?: boolean;
  readonly logLevel: Level;
  readonly logFormat: LogFormat;
}

const limitMs = 10 * 60_000;

interface Place {
  readonly mode: StateMode;
  readonly directory: string;
  /** Nothing says that there is a node: it may have gone, or never have been. */
  readonly guessed?: boolean;
}

/** The directories of this machine's nodes. Never empty: what lies outside of them is looked for even when they are gone. */
async function placesOf(flags: UninstallFlags): Promise<readonly Place[]> {
  const places: Place[] = [];
  if (flags.stateDir !== undefined) places.push({ mode: "up", directory: flags.stateDir });
  if (flags.rootDir !== undefined) places.push({ mode: "run", directory: flags.rootDir });
  if (places.length > 0) return places;
  const up: Place = { mode: "up", directory: "/var/lib/remora" };
  const run: Place = { mode: "run", directory: agentDefaults.rootDir };
  const holder = await machineLockHolder();
  if (holder !== undefined && holder.directory !== "") {
    const mode = holder.flag === "--root-dir" ? "run" : "up";
    places.push({ mode, directory: holder.directory });
  }
  for (const usual of [up, run]) {
    const known = places.some(({ directory }) => directory === usual.directory);
    if (!known && (await isProvablyOurs(usual.directory, usual.mode))) places.push(usual);
  }
  return places.length === 0 ? [{ ...up, guessed: true }] : places;
}

interface Plan {
  readonly nodes: readonly { readonly node: NodeOfDirectory; readonly traces: NodeTraces }[];
  readonly machine: Awaited<ReturnType<typeof machineTraces>>;
  readonly resources: readonly OwnResource[];
  readonly records: readonly OwnResource[];
  readonly kept: readonly string[];
}

class Uninstall {
  readonly #flags: UninstallFlags;
  readonly #logger: Logger;
  readonly #places: readonly Place[];

  constructor(flags: UninstallFlags, logger: Logger, places: readonly Place[]) {
    this.#flags = flags;
    this.#logger = logger;
    this.#places = places;
  }

  /**
   * Looks for everything.
   *
   * @param connect Whether the engine is asked whether it may be worked with, which cleans up behind crashes. A dry run
   *   does not.
   */
  async plan(connect: boolean, signal: AbortSignal): Promise<Plan> {
    const flags = this.#flags;
    const choices = {
      deleteVolumes: flags.deleteVolumes === true,
      deleteImages: flags.deleteImages === true,
    };
    const nodes: Plan["nodes"][number][] = [];
    for (const place of this.#places) {
      const foreign = await isForeign(place);
      const node = { ...(await nodeOf(place.mode, place.directory, flags)), foreign };
      const runtime: Engine = engineOf(node, this.#logger);
      if (connect) await runtime.connect(signal);
      const logger = this.#logger;
      nodes.push({ node, traces: await tracesOf(node, choices, { runtime, logger }, signal) });
    }
    const machine = await machineTraces(flags.packages === true, signal);
    return {
      nodes,
      machine,
      resources: [
        ...nodes.flatMap(({ traces }) => traces.resources),
        ...this.#nodeObjects(nodes.map(({ node }) => node)),
      ],
      records: nodes.flatMap(({ traces }) => traces.records),
      kept: [
        ...nodes.flatMap(({ traces }) => traces.kept),
        ...nodes.flatMap(({ node }) => this.#membership(node)),
        ...(await strangers(
          nodes.map(({ node }) => node),
          signal,
        )),
        ...machine.kept,
        ...(await others()),
      ],
    };
  }

  #nodeObjects(nodes: readonly NodeOfDirectory[]): readonly OwnResource[] {
    const { deleteNode, kubeconfig } = this.#flags;
    if (deleteNode !== true) return [];
    if (kubeconfig === undefined) {
      throw new SetupError(
        "--delete-node takes an administrator's credentials, because a node may not delete itself: give --kubeconfig too",
      );
    }
    // The cluster of `up` goes with the node.
    const joined = nodes.filter(({ mode }) => mode === "run");
    return joined.map(({ nodeName }) => ownNodeObject(nodeName, kubeconfig));
  }

  #membership({ mode, nodeName }: NodeOfDirectory): readonly string[] {
    if (mode === "up" || this.#flags.deleteNode === true) return [];
    return [`the Node object of ${nodeName} stays in its cluster: kubectl delete node ${nodeName}`];
  }
}

/**
 * Whether the directory is somebody else's. Where one was only guessed that is no reason to refuse: what an interrupted
 * removal left elsewhere is still to be found.
 *
 * @throws {SetupError} it is, and it was meant; or a newer version's.
 */
async function isForeign({ mode, directory, guessed = false }: Place): Promise<boolean> {
  try {
    await checkRemovable(directory, mode, remoraVersion);
    return false;
  } catch (error) {
    if (!guessed || !(error instanceof SetupError)) throw error;
    return true;
  }
}

/** Containers of agents that this removal knows nothing of. */
async function strangers(
  nodes: readonly NodeOfDirectory[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const known = new Set(nodes.map(({ nodeName }) => nodeName));
  const counts = new Map<string, number>();
  for (const socket of new Set(nodes.map(({ dockerSocket }) => dockerSocket))) {
    for (const { node } of await engineContainers(socket, signal)) {
      if (node !== undefined && !known.has(node)) counts.set(node, (counts.get(node) ?? 0) + 1);
    }
  }
  return [...counts].map(
    ([node, count]) =>
      `${count} container(s) belong to an agent of another name: --hostname-override ${node} removes them`,
  );
}

/** An engine that answers has containers to say: whoever says that it is gone must be right. */
async function refuseEngine({ mode, directory }: Place, flags: UninstallFlags): Promise<void> {
  const { dockerSocket } = await nodeOf(mode, directory, { ...flags, withoutEngine: false });
  if (dockerSocket === undefined || (await engineTrouble(dockerSocket)) !== undefined) return;
  throw new SetupError(
    `an engine answers on ${dockerSocket}, and may have containers of ours: leave out --without-engine`,
  );
}

/** What is an administrator's own. */
async function others(): Promise<readonly string[]> {
  const files = await namesIn("/etc/remora");
  return files.length === 0
    ? []
    : ["the configuration in /etc/remora stays: apt-get purge remora, or rm -r /etc/remora"];
}

/** How the program itself goes, which a running program does not do to itself. */
async function programHint(signal: AbortSignal): Promise<string> {
  const main = await realpath(process.argv[1] ?? "").catch(() => "");
  const owner = await execResult(["dpkg-query", "-S", main], { signal }).catch(() => undefined);
  const name = owner?.exitCode === 0 ? /^([^:,\s]+)/.exec(owner.stdout)?.[1] : undefined;
  if (name !== undefined) {
    return `the program is in the package ${name}: apt-get purge ${name} removes it`;
  }
  const directory = dirname(main);
  const unpacked = (await namesIn(directory)).includes("installed-files");
  return unpacked
    ? `the program is still there: ${join(directory, "install.sh")} --remove removes it`
    : `the program is where it was (${main})`;
}

function lineOf({ what, name }: Trace): string {
  return `${what}: ${name}`;
}

async function confirm(count: number, signal: AbortSignal): Promise<void> {
  if (!process.stdin.isTTY) {
    throw new SetupError(
      "nothing was removed: give --yes, or --dry-run to see first what would go",
    );
  }
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    const answer = await terminal.question(`Remove these ${count} things? [y/N] `, { signal });
    if (!/^y(es)?$/i.test(answer.trim())) throw new SetupError("nothing was removed");
  } finally {
    terminal.close();
  }
}

/**
 * `remora uninstall`: everything that Remora made on this machine, and nothing else. With `--dry-run` it says what a real
 * run would remove and changes nothing.
 *
 * @throws {SetupError} something is left, or it is not ours to remove.
 */
export async function uninstall(
  flags: UninstallFlags,
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  const say = (line: string): void => void process.stdout.write(`${line}\n`);
  const limited = deadline(signal, limitMs);
  const places = await placesOf(flags);
  const [first] = places;
  if (first === undefined) return;
  if (flags.withoutEngine === true) await refuseEngine(first, flags);
  const { dockerSocket } = await nodeOf(first.mode, first.directory, flags);
  await checkMachine(dockerSocket, limited);
  const directories = places.map(({ directory }) => directory);
  await refuseOtherAgent(directories);
  const work = new Uninstall(flags, logger, places);
  const units = ownUnits();

  const before = await work.plan(false, limited);
  const everything = (plan: Plan): readonly OwnResource[] => [
    units,
    ...plan.resources,
    ...plan.machine.resources,
    ...plan.records,
    ...plan.machine.records,
  ];
  const planned = unionOf(await lookAt(everything(before), limited));
  const engine = await ownEngine();
  if (flags.dryRun === true) {
    for (const trace of planned) say(`would remove  ${lineOf(trace)}`);
    if (engine !== undefined) say(`would stop    dockerd that remora started (pid ${engine})`);
    for (const sentence of before.kept) say(`kept          ${sentence}`);
    say(`${planned.length} would go; nothing was changed`);
    return;
  }
  if (flags.yes !== true) {
    for (const trace of planned) say(`  ${lineOf(trace)}`);
    for (const sentence of before.kept) say(`kept  ${sentence}`);
    await confirm(planned.length, signal);
  }

  const telling = { say, step: removalStep() };
  await removeAll([units], telling, limited);
  for (const directory of directories) {
    await telling.step("stopAgent");
    await stopAgent(directory, { say, clock: systemClock }, limited);
  }
  const plan = await work.plan(true, limited);
  const found = unionOf(planned, await lookAt(everything(plan), limited));
  await removeAll([...plan.resources, ...plan.machine.resources], telling, limited);
  let left = unionOf(await lookAt([units, ...plan.resources, ...plan.machine.resources], limited));
  if (left.length === 0) {
    for (const { node } of plan.nodes) await removeMadeDirectories(node.changes);
    await removeAll([...plan.records, ...plan.machine.records], telling, limited);
    left = unionOf(await lookAt(everything(plan), limited));
  }
  await telling.step("stopEngine");
  const hasContainers = async (): Promise<boolean> =>
    (await engineContainers(dockerSocket, limited)).length > 0;
  await stopOwnEngine(hasContainers, { say, clock: systemClock }, limited);
  for (const trace of goneOf(found, left)) say(`removed       ${lineOf(trace)}`);
  for (const sentence of plan.kept) say(`kept          ${sentence}`);
  for (const trace of left) say(`left          ${lineOf(trace)}`);
  say(`${left.length} left`);
  if (left.length > 0) {
    throw new SetupError(
      `${left.length} things are left, named above with what kept them; remove them by hand or run uninstall again`,
    );
  }
  say(await programHint(limited));
}
