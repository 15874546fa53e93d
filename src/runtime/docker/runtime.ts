import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import { RuntimeError } from "../errors.ts";
import type { ContainerRuntime, ImageService, RuntimeInfo } from "../types.ts";
import { DockerClient } from "./client.ts";
import { deleteContainer } from "./container-calls.ts";
import { updateContainer } from "./container-limits.ts";
import {
  createContainer,
  removeContainer,
  startPodContainer,
  stopContainer,
} from "./containers.ts";
import type { DockerContext } from "./context.ts";
import { runtimeEvents } from "./events.ts";
import { attach, exec, execSync } from "./exec.ts";
import { type ProbedHost, probeHost } from "./host-probe.ts";
import { ImageAccounts } from "./image-accounts.ts";
import { createImageService } from "./images.ts";
import { label } from "./labels.ts";
import { sweepLogLinks } from "./log-links.ts";
import { Observer } from "./observer.ts";
import { PauseImage } from "./pause-image.ts";
import { removePodSandbox, runPodSandbox, stopPodSandbox } from "./sandbox.ts";

export interface DockerRuntimeOptions {
  readonly socketPath: string;
  /** Containers carry it; those of other nodes on the same engine are never touched. */
  readonly nodeName: string;
  /** Tells several agents of one node name apart (tests); empty or absent normally. */
  readonly scope?: string;
  /** /var/log/pods */
  readonly podLogsDir: string;
  /** /var/log/containers */
  readonly containerLogsDir: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** 0 <= n < 1, for jitter. */
  readonly random: () => number;
}

/**
 * Pods on a Docker Engine. Nothing is connected or read before the first call. Safe for concurrent use; one per
 * process is enough.
 */
export function createDockerRuntime(
  options: DockerRuntimeOptions,
): ContainerRuntime & ImageService {
  const context = createContext(options);
  const { observer } = context;
  return {
    connect: (signal) => connect(context, signal),
    ping: async (signal) => {
      const call = { op: "ping Docker", method: "GET", path: "/_ping", timeoutMs: 5000 } as const;
      await context.client.call(call, signal);
    },
    snapshot: (signal) => observer.snapshot(signal),
    podRecord: (uid, signal) => observer.podRecord(uid, signal),
    events: (signal) => runtimeEvents(context, signal),
    runPodSandbox: (config, signal) => runPodSandbox(context, config, signal),
    stopPodSandbox: (id, signal) => stopPodSandbox(context, id, signal),
    removePodSandbox: (id, signal) => removePodSandbox(context, id, signal),
    createContainer: (sandbox, config, signal) => createContainer(context, sandbox, config, signal),
    startContainer: (id, signal) => startPodContainer(context, id, signal),
    stopContainer: (id, seconds, signal) => stopContainer(context, id, seconds, signal),
    updateContainer: (id, limits, signal) => updateContainer(context, id, limits, signal),
    removeContainer: (id, signal) => removeContainer(context, id, signal),
    containerLogPath: async (id, signal) => {
      const { logPath } = await observer.inspect(id, signal);
      return logPath === "" ? undefined : logPath;
    },
    execSync: (id, command, limits, signal) => execSync(context, id, command, limits, signal),
    exec: (id, what, signal) => exec(context, id, what, signal),
    attach: (id, what, signal) => attach(context, id, what, signal),
    ...createImageService(context),
  };
}

interface ConnectableContext extends DockerContext {
  probe(signal: AbortSignal): Promise<ProbedHost>;
}

function createContext(options: DockerRuntimeOptions): ConnectableContext {
  const { clock, logger, random } = options;
  const owner = { nodeName: options.nodeName, scope: options.scope ?? "" };
  const logDirs = {
    podLogsDir: options.podLogsDir,
    containerLogsDir: options.containerLogsDir,
  };
  const client = new DockerClient({ socketPath: options.socketPath, clock });
  let probed: ProbedHost | undefined;
  const probe = async (signal: AbortSignal): Promise<ProbedHost> => {
    probed = await probeHost(client, signal);
    return probed;
  };
  return {
    client,
    clock,
    logger,
    random,
    owner,
    logDirs,
    observer: new Observer({ client, clock, logger, owner, logDirs }),
    pauseImage: new PauseImage(client),
    accounts: new ImageAccounts(client, owner),
    probe,
    // The API version may have changed since, when the engine was upgraded under us.
    host: async (signal) => {
      const { api } = await client.version(signal);
      return probed?.facts.api === api ? probed : probe(signal);
    },
  };
}

async function connect(context: ConnectableContext, signal: AbortSignal): Promise<RuntimeInfo> {
  context.client.renegotiate();
  const { info } = await context.probe(signal);
  const { ours, newer } = await context.observer.list([], signal);
  if (newer > 0) {
    throw new RuntimeError(
      "Unsupported",
      `${newer} container(s) of node ${context.owner.nodeName} were made by a newer Remora: run that version, or let it remove them first`,
    );
  }
  const old = context.clock.now() - 120_000;
  for (const { id, labels, createdAt } of ours) {
    // Left by a crash in the middle of reading an image's files.
    if (labels[label.type] === "accounts" && createdAt < old) {
      await deleteContainer(context, id, signal);
    }
  }
  await sweepLogLinks(context.logDirs);
  return info;
}
