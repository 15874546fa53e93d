import { existsSync } from "node:fs";
import { readFile, rm, rmdir } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

import { agentDefaults } from "../../config/agent-config.ts";
import { deadline, systemClock } from "../../lib/clock.ts";
import { errorCode, errorMessage, SetupError } from "../../lib/errors.ts";
import { isRecord } from "../../lib/guard.ts";
import type { Logger } from "../../lib/log.ts";
import { namesIn } from "../../lib/names-in.ts";
import { cleanUpProxy, leftOfProxy } from "../../proxy/cleanup.ts";
import { createDockerRuntime } from "../../runtime/docker/runtime.ts";
import type { DownFlags } from "../flags.ts";
import { credentialPaths, joinedFiles } from "../join/credential-files.ts";
import { lockHolder, machineLockHolder } from "../instance-lock.ts";
import { ownLoopDevices, ownSessions } from "../own-disks.ts";
import {
  ownCgroups,
  ownContainers,
  ownFiles,
  ownImages,
  ownInterfaces,
  ownLogs,
  ownMounts,
  ownNetworkRules,
  ownRoutes,
  type OwnResource,
} from "../own-resources.ts";
import { readPlaces } from "../places.ts";
import { createPodNetwork } from "../pod-network.ts";
import { checkMachine } from "../preflight.ts";
import { invokingUser, kubeconfigPath, removeUserKubeconfig } from "../user-kubeconfig.ts";

const bridge = "remora0";
const stopDeadlineMs = 60_000;
/** Written by the launcher when it had to start the engine itself. */
const dockerdPidFile = "/run/remora/dockerd.pid";

/** An agent that runs on another directory would build everything up again behind our back. */
async function refuseOtherAgent(directory: string): Promise<void> {
  const holder = await machineLockHolder();
  if (holder === undefined || holder.directory === directory) return;
  throw new SetupError(
    `remora (pid ${holder.pid}) runs on ${holder.directory}: give ${holder.flag} ${holder.directory}`,
  );
}

/** Asks a running agent to end, and waits until it has let go of its directory. */
async function stopAgent(
  directory: string,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const pid = await lockHolder(directory);
  if (pid === undefined) return;
  say(`stopping the remora that runs on ${directory} (pid ${pid})`);
  process.kill(pid, "SIGTERM");
  const started = systemClock.monotonic();
  while ((await lockHolder(directory)) !== undefined) {
    if (systemClock.monotonic() - started > stopDeadlineMs) {
      throw new SetupError(
        `remora (pid ${pid}) did not end within a minute; end it by hand, then try again`,
      );
    }
    await systemClock.sleep(100, signal);
  }
}

/** Whether an agent of `remora run` has worked in a root directory: what a kubelet keeps there has neither. */
function hasRun(rootDir: string): boolean {
  return [credentialPaths(rootDir).kubeconfig, join(rootDir, "network", "ipam")].some((path) =>
    existsSync(path),
  );
}

/** Stops the engine if our launcher started it and nobody else has containers in it. */
async function stopOwnDockerd(
  images: { hasContainers: () => Promise<boolean> },
  say: (line: string) => void,
): Promise<void> {
  let pid: number;
  try {
    pid = Number((await readFile(dockerdPidFile, "utf8")).trim());
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw error;
  }
  if (await images.hasContainers()) {
    say(
      "dockerd was started by remora and still has containers of somebody else; it keeps running",
    );
    return;
  }
  say(`stopping the dockerd that remora started (pid ${pid})`);
  try {
    process.kill(pid, "SIGTERM");
    const started = systemClock.monotonic();
    while (systemClock.monotonic() - started < 30_000) {
      process.kill(pid, 0);
      await systemClock.sleep(100, AbortSignal.timeout(60_000));
    }
  } catch (error) {
    // ESRCH: it is gone.
    if (errorCode(error) !== "ESRCH") throw error;
  }
  await rm("/run/remora", { recursive: true, force: true });
}

async function engineHasContainers(socketPath: string): Promise<boolean> {
  const { request } = await import("node:http");
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, path: "/info", timeout: 10_000 }, (incoming) => {
      let text = "";
      incoming.on("data", (chunk: Buffer) => (text += chunk.toString("utf8")));
      incoming.on("end", () => {
        const info: unknown = JSON.parse(text);
        resolve(isRecord(info) && Number(info["Containers"]) > 0);
      });
    });
    outgoing.on("error", reject);
    outgoing.end();
  });
}

async function removeAll(
  resources: readonly OwnResource[],
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<number> {
  for (const resource of resources) {
    try {
      await resource.remove(signal);
    } catch (error) {
      // The others are removed all the same; the count below says what this one left.
      say(`${resource.what}: ${errorMessage(error)}`);
    }
  }
  let total = 0;
  for (const resource of resources) {
    const left = await resource.left(signal);
    total += left.length;
    say(`${resource.what.padEnd(20)} ${left.length} left`);
    for (const line of left.slice(0, 5)) say(`  ${line}`);
  }
  return total;
}

/**
 * `remora down`: ends the agent, removes pods and everything else that is ours, then looks at the machine again.
 *
 * @throws {SetupError} when something is left.
 */
export async function down(flags: DownFlags, logger: Logger, signal: AbortSignal): Promise<void> {
  const say = (line: string): void => void process.stdout.write(`${line}\n`);
  const ownsState = flags.rootDir === undefined;
  const rootDir = flags.rootDir ?? join(flags.stateDir, "kubelet");
  const places = await readPlaces(rootDir);
  const { podLogsDir, containerLogsDir, cgroupRoot, certDir } = places;
  const dockerSocket = flags.dockerSocket ?? places.dockerSocket ?? agentDefaults.dockerSocket;
  await checkMachine(dockerSocket, signal);
  const directory = ownsState ? flags.stateDir : rootDir;
  await refuseOtherAgent(directory);
  await stopAgent(directory, say, signal);

  const runtime = createDockerRuntime({
    socketPath: dockerSocket,
    nodeName: (flags.hostnameOverride ?? places.nodeName ?? hostname()).toLowerCase(),
    podLogsDir,
    containerLogsDir,
    clock: systemClock,
    logger,
    random: () => 0,
  });
  const limited = deadline(signal, 10 * 60_000);
  await runtime.connect(limited);
  const network = createPodNetwork({
    config: { rootDir, clusterCIDRs: [], podNetwork: "bridge", proxy: agentDefaults.proxy },
    bridge: { bridgeName: bridge },
    clock: systemClock,
    logger,
  });
  const uids = new Set([
    ...(await namesIn(join(rootDir, "pods"))),
    ...(await runtime.snapshot(limited)).keys(),
  ]);
  const { files, kept } = await filesToRemove(flags, { rootDir, certDir });
  const total = await removeAll(
    [
      ownContainers(runtime),
      ownNetworkRules(network, { cleanUp: (inner) => cleanUpProxy(inner), left: leftOfProxy }),
      ownRoutes(),
      ownInterfaces(bridge),
      ownLoopDevices(rootDir),
      ownMounts(rootDir),
      ownSessions(rootDir, logger),
      ownCgroups(cgroupRoot),
      ownLogs({
        podLogsDir,
        containerLogsDir,
        isOurs: (name) => uids.has(name.slice(name.lastIndexOf("_") + 1)),
      }),
      ownImages(runtime),
      ownFiles(files),
    ],
    say,
    limited,
  );
  if (!ownsState) {
    // Sockets of CSI drivers in the last two are the drivers' own.
    const shared = [
      certDir ?? join(rootDir, "pki"),
      ...sharedWithDrivers.map((name) => join(rootDir, name)),
    ];
    for (const path of shared) await removeIfEmpty(path);
  }
  if (ownsState) {
    const user = invokingUser(await readFile("/etc/passwd", "utf8"), process.env);
    const path = kubeconfigPath(user, process.env);
    try {
      if (await removeUserKubeconfig(path, user)) say(`took our context out of ${path}`);
    } catch (error) {
      // Somebody's own file that we cannot read: what else is ours is gone all the same.
      say(errorMessage(error));
    }
  }
  await stopOwnDockerd({ hasContainers: () => engineHasContainers(dockerSocket) }, say);
  if (total > 0)
    throw new SetupError(
      `${total} things are left, named above; remove them by hand or run down again`,
    );
  const { rootDir: usual } = agentDefaults;
  if (ownsState && hasRun(usual)) {
    throw new SetupError(
      `${usual} holds what "remora run" keeps: remora down --root-dir ${usual} removes it`,
    );
  }
  if (kept !== undefined) say(kept);
  say(`nothing ${kept === undefined ? "" : "else "}is left of remora on this machine`);
}

/** Directories in which CSI drivers keep what is theirs. */
const sharedWithDrivers = ["plugins", "plugins_registry"];

/** Files and directories that go; `kept` says what stays, because it is somebody's data. */
async function filesToRemove(
  flags: DownFlags,
  { rootDir, certDir }: { readonly rootDir: string; readonly certDir: string | undefined },
): Promise<{ readonly files: readonly string[]; readonly kept: string | undefined }> {
  const ownsState = flags.rootDir === undefined;
  const volumesDir = ownsState ? join(flags.stateDir, "volumes") : join(rootDir, "local-volumes");
  const volumes = flags.deleteVolumes === true ? [] : await namesIn(volumesDir);
  const kept =
    volumes.length === 0
      ? undefined
      : `the data of claims (${volumes.length}) stays in ${volumesDir}; remora down --delete-volumes removes it`;
  if (ownsState) {
    const files = await stateFiles(flags.stateDir, kept === undefined ? undefined : volumesDir);
    return { files, kept };
  }
  const names = ["pods", "network", "dns", "image_manager", "agent.sock", "places.json"];
  names.push("local-volume-records", "plugins/kubernetes.io");
  if (kept === undefined) names.push("local-volumes");
  const files = [
    ...names.map((name) => join(rootDir, name)),
    ...["kubelet.crt", "kubelet.key"].map((name) => join(certDir ?? join(rootDir, "pki"), name)),
    ...(await joinedFiles(rootDir, certDir)),
  ];
  return { files, kept };
}

/** What of the state directory goes: all of it, unless the data of claims in it is to stay. */
async function stateFiles(stateDir: string, kept: string | undefined): Promise<string[]> {
  if (kept === undefined) return [stateDir];
  const paths = (await namesIn(stateDir)).map((name) => join(stateDir, name));
  return paths.filter((path) => path !== kept);
}

/** A directory in which others may keep something too. */
async function removeIfEmpty(path: string): Promise<void> {
  try {
    await rmdir(path);
  } catch (error) {
    if (!["ENOENT", "ENOTEMPTY", "ENOTDIR"].includes(errorCode(error) ?? "")) throw error;
  }
}
