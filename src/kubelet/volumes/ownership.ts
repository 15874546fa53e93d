import { readlinkSync } from "node:fs";
import { stat } from "node:fs/promises";
import { addAbortSignal } from "node:stream";

import type { EventRecorder } from "../../api/event-types.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import { spawnStreaming } from "../../lib/exec.ts";
import type { Logger } from "../../lib/log.ts";
import { podTarget } from "../pods/event-target.ts";
import type { AssignedPod } from "../types.ts";
import { namesIn } from "../../lib/names-in.ts";
import { type OwnershipOrder, parseOwnershipReport } from "./ownership-report.ts";
import { asyncTree, giveToGroup, rootMatches, type WalkResult } from "./ownership-walk.ts";
import { VolumeError } from "./payload.ts";
import type { ApplyOwnership } from "./plugin.ts";
import { podPaths } from "./pod-paths.ts";

export interface OwnershipDeps {
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Entries beyond which a process of its own goes on; default 500. */
  readonly maxInline?: number;
  /** Program that runs `runOwnershipChild`; default: this Node on ownership-child.ts beside this file. */
  readonly argv?: readonly [string, ...string[]];
}

/** A volume that is to belong to the pod's group. */
export interface OwnedVolume {
  readonly path: string;
  readonly fsGroup: number;
  readonly readOnly: boolean;
}

const maxInlineEntries = 500;
const firstNoticeMs = 30_000;
const noticeMs = 60_000;

function childArgv(): [string, string] {
  // The Node that runs us, whatever PATH says.
  const node = readlinkSync("/proc/self/exe");
  // The bundle has its own copy beside it.
  const suffix = import.meta.url.endsWith(".cjs") ? "cjs" : "ts";
  return [node, new URL(`ownership-child.${suffix}`, import.meta.url).pathname];
}

async function walkInChild(
  deps: OwnershipDeps,
  order: OwnershipOrder,
  seen: (entries: number) => void,
  signal: AbortSignal,
): Promise<WalkResult> {
  const child = spawnStreaming(deps.argv ?? childArgv(), { signal, dieWithParent: true });
  child.stdin.end(JSON.stringify(order));
  let stderr = "";
  child.stderr.on("data", (chunk: Buffer) => {
    stderr = (stderr + chunk.toString("utf8")).slice(0, 4096);
  });
  let rest = "";
  let result: WalkResult | undefined;
  // What hangs in the kernel does not die, and must not be waited for.
  const output: AsyncIterable<Buffer> = addAbortSignal(signal, child.stdout);
  for await (const chunk of output) {
    const lines = (rest + chunk.toString("utf8")).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const report = parseOwnershipReport(line);
      if (report.kind === "done") result = report.result;
      else seen(report.entries);
    }
  }
  if (result === undefined) {
    const [reason = "it ended early"] = /^\w*Error: .*$/m.exec(stderr) ?? [];
    throw new VolumeError(reason);
  }
  return result;
}

/** Small trees are walked at once; a large one costs a process, and nobody else any time. */
async function walk(
  deps: OwnershipDeps,
  volume: OwnedVolume,
  seen: (entries: number) => void,
  signal: AbortSignal,
): Promise<WalkResult> {
  const { fsGroup: gid, path, readOnly } = volume;
  const maxInline = deps.maxInline ?? maxInlineEntries;
  const small = await giveToGroup(
    path,
    { gid, readOnly },
    { files: asyncTree, signal, seen: (entries) => entries <= maxInline },
  );
  return small.complete ? small : walkInChild(deps, { path, gid, readOnly }, seen, signal);
}

/** From the pod's uid on: where the kubelet keeps its directories is nobody's business. */
function shownPath(pod: AssignedPod, path: string): string {
  const at = path.indexOf(pod.metadata.uid);
  return at < 0 ? path : path.slice(at);
}

/** Tells the pod while its volume takes long: after half a minute, then each minute. */
async function notify(
  { clock, events }: OwnershipDeps,
  pod: AssignedPod,
  { path, entries }: { readonly path: string; readonly entries: () => number },
  signal: AbortSignal,
): Promise<void> {
  const shown = shownPath(pod, path);
  const say = (text: string): void => {
    events.event(podTarget(pod), "Warning", "VolumePermissionChangeInProgress", text);
  };
  await clock.sleep(firstNoticeMs, signal);
  say(
    `Setting volume ownership for ${shown} is taking longer than expected, consider using OnRootMismatch - https://kubernetes.io/docs/tasks/configure-pod-container/security-context/#configure-volume-permission-and-ownership-change-policy-for-pods`,
  );
  while (!signal.aborted) {
    await clock.sleep(noticeMs, signal);
    say(`Setting volume ownership for ${shown}, processed ${entries()} files.`);
  }
}

async function isOwned({ fsGroup: gid, path, readOnly }: OwnedVolume): Promise<boolean> {
  return rootMatches(await stat(path), { gid, readOnly });
}

/**
 * Gives all files of a volume to the pod's `fsGroup`: the group may read, and write unless the volume is read-only;
 * directories pass the group on. With `fsGroupChangePolicy: OnRootMismatch` only when the volume's root shows that it
 * was not done before. For the volumes of which a plug-in says so, and once for each time they are set up.
 *
 * @throws {VolumeError} when the volume cannot be read; `AbortError`.
 */
export async function applyOwnership(
  deps: OwnershipDeps,
  pod: AssignedPod,
  volume: OwnedVolume,
  signal: AbortSignal,
): Promise<void> {
  const policy = pod.spec?.securityContext?.fsGroupChangePolicy ?? "Always";
  const done = new AbortController();
  let entries = 0;
  const notices = notify(
    deps,
    pod,
    { path: volume.path, entries: () => entries },
    AbortSignal.any([signal, done.signal]),
  ).catch(() => undefined);
  try {
    if (policy === "OnRootMismatch" && (await isOwned(volume))) return;
    const result = await walk(deps, volume, (seen) => void (entries = seen), signal);
    if (result.failures > 0) {
      deps.logger.log("warn", "files of a volume could not be given to the pod's group", {
        podUID: pod.metadata.uid,
        path: volume.path,
        files: result.failures,
        error: result.problem ?? "",
      });
    }
  } catch (error) {
    if (signal.aborted && isAbort(error)) throw error;
    throw new VolumeError(`applyFSGroup failed for vol ${volume.path}: ${errorMessage(error)}`, {
      cause: error,
    });
  } finally {
    done.abort();
    await notices;
  }
}

/** Whether some container of the pod was ever started, by what each start leaves in the pod's directory. */
async function hasStarted(rootDir: string, { metadata: { uid } }: AssignedPod): Promise<boolean> {
  return (await namesIn(podPaths(rootDir, uid).containers)).length > 0;
}

/**
 * {@link applyOwnership} for the volumes of pods, as they were prepared. No container is started before all of them are
 * done, so that an agent that finds one leaves what containers have made of their files as it is.
 */
export function fsGroupApplier(
  deps: OwnershipDeps & { readonly config: Pick<AgentConfig, "rootDir"> },
): ApplyOwnership {
  return async ({ pod, prepared: { hostPath: path, readOnly } }, signal) => {
    const fsGroup = pod.spec?.securityContext?.fsGroup;
    if (fsGroup === undefined || (await hasStarted(deps.config.rootDir, pod))) return;
    await applyOwnership(deps, pod, { path, fsGroup, readOnly }, signal);
  };
}
