import { createHash } from "node:crypto";

import type { Container } from "../../api/types.gen.ts";
import type {
  ContainerConfig,
  Device,
  Image,
  LinuxSecurityContext,
  Mount,
} from "../../runtime/types.ts";
import type { AssignedPod } from "../types.ts";
import { type PodContainer, podGracePeriodSeconds } from "./containers.ts";
import { expandReferences } from "./expand.ts";
import type { ContainerNote } from "./records.ts";
import { linuxResources } from "./resources.ts";
import { pidNamespace } from "./sandbox-config.ts";

/** Digest of what a change of must restart the container: its name and image, as upstream since 1.32. */
export function specHash(container: Container): string {
  const identity = JSON.stringify([container.name, container.image ?? ""]);
  return createHash("sha256").update(identity).digest("hex").slice(0, 16);
}

/** Digest of what a container asks for; undefined for nothing. Other resources may mend what made it crash. */
export function resourcesHash({ resources }: Container): string | undefined {
  if (resources === undefined || Object.keys(resources).length === 0) return undefined;
  const sorted = [resources.limits, resources.requests].map((list) =>
    Object.entries(list ?? {}).toSorted(([a], [b]) => (a < b ? -1 : 1)),
  );
  return createHash("sha256").update(JSON.stringify(sorted)).digest("hex").slice(0, 16);
}

/** Everything that is known only at creation time. */
export interface ContainerFacts {
  readonly attempt: number;
  readonly image: Image;
  readonly environment: ReadonlyMap<string, string>;
  readonly mounts: readonly Mount[];
  /** Raw block volumes; default: none. */
  readonly devices?: readonly Device[];
  readonly security: LinuxSecurityContext;
  readonly targetContainerID: string | undefined;
  readonly backoffMs: number;
  readonly terminationMessageFile: string;
}

/** The node's share of a container's configuration. */
export interface ContainerLimits {
  readonly nodeMemoryBytes: number;
  readonly podPidsLimit: number;
  readonly logMaxBytes: number;
  readonly logMaxFiles: number;
}

/** Directory of the pod's logs below the pod log root. */
function podLogDirectory(pod: AssignedPod): string {
  const { name, namespace = "", uid } = pod.metadata;
  return `${namespace}_${name}_${uid}`;
}

/** Where the log of one run of a container is shown, below /var/log/pods. */
export function podLogPath(pod: AssignedPod, container: string, attempt: number): string {
  return `${podLogDirectory(pod)}/${container}/${attempt}.log`;
}

/** What the runtime is asked for as one container. */
export function containerConfig(
  pod: AssignedPod,
  entry: PodContainer,
  facts: ContainerFacts,
  limits: ContainerLimits,
): ContainerConfig {
  const { container } = entry;
  const lookup = (name: string): string | undefined => facts.environment.get(name);
  const expandAll = (words: readonly string[] | undefined): readonly string[] | undefined =>
    words === undefined || words.length === 0
      ? undefined
      : words.map((word) => expandReferences(word, lookup));
  const grace = podGracePeriodSeconds(pod);
  const readOnlyTrees = facts.mounts.flatMap((mount) =>
    mount.recursiveReadOnly === true ? [mount.containerPath] : [],
  );
  // Where processes are shared anyway there is nothing to join.
  const pid = pidNamespace(pod);
  const targetContainerID = pid === "container" ? facts.targetContainerID : undefined;
  const resources = resourcesHash(container);
  const note: ContainerNote = {
    backoffMs: facts.backoffMs,
    ...(resources === undefined ? {} : { resourcesHash: resources }),
    terminationMessagePath: container.terminationMessagePath ?? "/dev/termination-log",
    terminationMessagePolicy: container.terminationMessagePolicy ?? "File",
    terminationMessageFile: facts.terminationMessageFile,
    gracePeriodSeconds: grace,
    ...(readOnlyTrees.length === 0 ? {} : { recursiveReadOnly: readOnlyTrees }),
  };
  return {
    name: container.name,
    attempt: facts.attempt,
    imageID: facts.image.id,
    command: expandAll(container.command),
    args: expandAll(container.args),
    env: [...facts.environment].map(([name, value]) => ({ name, value })),
    workingDir: container.workingDir === "" ? undefined : container.workingDir,
    mounts: facts.mounts,
    devices: facts.devices ?? [],
    labels: {},
    specHash: specHash(container),
    record: JSON.stringify(note),
    logPath: podLogPath(pod, container.name, facts.attempt),
    logMaxBytes: limits.logMaxBytes,
    logMaxFiles: limits.logMaxFiles,
    stdin: container.stdin ?? false,
    stdinOnce: container.stdinOnce ?? false,
    tty: container.tty ?? false,
    resources: linuxResources(pod, container, {
      memoryBytes: limits.nodeMemoryBytes,
      podPidsLimit: limits.podPidsLimit,
    }),
    security: facts.security,
    pid,
    targetContainerID,
    stopSignal: container.lifecycle?.stopSignal,
    terminationGracePeriodSeconds: grace,
  };
}
