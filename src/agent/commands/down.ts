import { existsSync } from "node:fs";
import { join } from "node:path";

import { agentDefaults } from "../../config/agent-config.ts";
import { deadline, systemClock } from "../../lib/clock.ts";
import { SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { DownFlags } from "../flags.ts";
import { credentialPaths } from "../join/credential-files.ts";
import { engineContainers } from "../ledger/engine-list.ts";
import { engineOf, nodeOf, tracesOf } from "../ledger/node-traces.ts";
import { removeMadeDirectories } from "../ledger/own-kubeconfigs.ts";
import { stopOwnEngine } from "../ledger/own-engine.ts";
import { lookAt, removeAll, type RemovalStep, type Trace } from "../ledger/removal.ts";
import { checkRemovable } from "../ledger/state-marker.ts";
import { setupLedgerName } from "../ledger/state-names.ts";
import { refuseOtherAgent, stopAgent } from "../ledger/stop-agent.ts";
import { crashHook } from "../crash-hook.ts";
import type { OwnResource } from "../own-resources.ts";
import { checkMachine } from "../preflight.ts";
import { remoraVersion } from "../version.ts";

/** Whether an agent of `remora run` has worked in a root directory: what a kubelet keeps there has neither. */
function hasRun(rootDir: string): boolean {
  return [credentialPaths(rootDir).kubeconfig, join(rootDir, "network", "ipam")].some((path) =>
    existsSync(path),
  );
}

function report(
  resources: readonly OwnResource[],
  left: readonly Trace[],
  say: (line: string) => void,
): void {
  for (const { what } of resources) {
    const names = left.filter((trace) => trace.what === what).map(({ name }) => name);
    say(`${what.padEnd(20)} ${names.length} left`);
    for (const name of names.slice(0, 5)) say(`  ${name}`);
  }
}

function setupRecord(directory: string): readonly string[] {
  const path = join(directory, setupLedgerName);
  return existsSync(path)
    ? [`${path} stays: it names what was installed for remora; remora uninstall goes by it`]
    : [];
}

/** The failpoint of a removal, as crash tests set it. */
export function removalStep(): RemovalStep {
  return crashHook(process.env["REMORA_CRASH_AT"], () => process.kill(process.pid, "SIGKILL"));
}

/**
 * `remora down`: ends the agent, removes pods and everything else that is ours, then looks at the machine again.
 *
 * @throws {SetupError} when something is left.
 */
export async function down(flags: DownFlags, logger: Logger, signal: AbortSignal): Promise<void> {
  const say = (line: string): void => void process.stdout.write(`${line}\n`);
  const mode = flags.rootDir === undefined ? "up" : "run";
  const directory = flags.rootDir ?? flags.stateDir;
  const node = await nodeOf(mode, directory, flags);
  await checkMachine(node.dockerSocket, signal);
  await checkRemovable(directory, mode, remoraVersion);
  await refuseOtherAgent([directory]);
  await stopAgent(directory, { say, clock: systemClock }, signal);

  const runtime = engineOf(node, logger);
  const limited = deadline(signal, 10 * 60_000);
  await runtime.connect(limited);
  const choices = { deleteVolumes: flags.deleteVolumes === true, deleteImages: false };
  const traces = await tracesOf(node, choices, { runtime, logger }, limited);
  const telling = { say, step: removalStep() };
  await removeAll(traces.resources, telling, limited);
  let left = await lookAt(traces.resources, limited);
  if (left.length === 0) {
    await removeMadeDirectories(node.changes);
    await removeAll(traces.records, telling, limited);
    left = await lookAt(traces.records, limited);
  }
  report([...traces.resources, ...traces.records], left, say);
  const hasContainers = async (): Promise<boolean> =>
    (await engineContainers(node.dockerSocket, signal)).length > 0;
  await stopOwnEngine(hasContainers, { say, clock: systemClock }, signal);
  if (left.length > 0)
    throw new SetupError(
      `${left.length} things are left, named above; remove them by hand or run down again`,
    );
  const { rootDir: usual } = agentDefaults;
  if (mode === "up" && hasRun(usual)) {
    throw new SetupError(
      `${usual} holds what "remora run" keeps: remora down --root-dir ${usual} removes it`,
    );
  }
  const kept = [...traces.kept, ...setupRecord(directory)];
  for (const sentence of kept) say(sentence);
  say(`nothing ${kept.length === 0 ? "" : "else "}is left of remora on this machine`);
}
