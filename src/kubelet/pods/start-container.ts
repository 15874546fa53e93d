import { chmod, readFile, writeFile } from "node:fs/promises";
import { dirname, join, normalize } from "node:path";

import { errorMessage, isAbort, RemoraError } from "../../lib/errors.ts";
import type { ContainerConfig, Image, Mount } from "../../runtime/types.ts";
import { parseKeyring, type Keyring } from "../images/credentials.ts";
import { ImageError } from "../images/puller.ts";
import { containerConfig } from "../spec/container-config.ts";
import { maxEnvFileBytes } from "../spec/env-file.ts";
import {
  ContainerConfigError,
  containerEnvironment,
  type EnvFile,
  environmentFiles,
  environmentReferences,
} from "../spec/env.ts";
import { isHostNetwork, podGracePeriodSeconds } from "../spec/containers.ts";
import { asksForRecursiveReadOnly, containerPath, ImageSubPathError } from "../spec/mounts.ts";
import { wholeUnits } from "../spec/quantities.ts";
import {
  linuxSecurityContext,
  localhostSeccompProfiles,
  verifyRunAsNonRoot,
} from "../spec/security.ts";
import { serviceEnvironment } from "../spec/service-env.ts";
import { recordsOf, type ObservedPod } from "../status/observed.ts";
import type { AssignedPod } from "../types.ts";
import type { PodImages, ShownImage } from "../volumes/image-volumes.ts";
import { makeDirectory } from "../volumes/make-directory.ts";
import { podFileMounts, writePodFiles } from "../volumes/pod-files.ts";
import { readVolumeFile } from "../volumes/volume-file.ts";
import type { PodAction } from "./pod-action.ts";
import { containerTarget, podTarget } from "./event-target.ts";
import { runHook } from "./hooks.ts";
import type { PodDeps } from "./pod-deps.ts";
import type { PodEntry } from "./pod-entry.ts";
import { stopContainer } from "./stop-containers.ts";

type StartAction = Extract<PodAction, { kind: "startContainer" }>;

/** A container could not be started; `reason` is what its status shows while it waits. */
export class StartError extends RemoraError {
  readonly code = "REMORA_CONTAINER_START";
  override readonly retryable = true;
  readonly reason: string;
  /** When a new try makes sense, milliseconds since the epoch. */
  readonly retryAt: number | undefined;

  constructor(reason: string, message: string, options?: ErrorOptions & { retryAt?: number }) {
    super(message, options);
    this.reason = reason;
    this.retryAt = options?.retryAt;
  }
}

/** What one start works on. */
interface Start {
  readonly deps: PodDeps;
  readonly state: PodEntry;
  readonly pod: AssignedPod;
  readonly observed: ObservedPod;
  readonly action: StartAction;
  readonly volumeImages: PodImages;
  readonly signal: AbortSignal;
}

function podIPs({ action, observed, pod }: Start): readonly string[] {
  if (isHostNetwork(pod)) return observed.hostIPs;
  return observed.addresses(action.sandbox.id) ?? [];
}

async function pullSecrets(start: Start): Promise<Keyring> {
  const { deps, pod, signal } = start;
  const { namespace = "" } = pod.metadata;
  const keyring: Keyring[number][] = [];
  for (const { name = "" } of pod.spec?.imagePullSecrets ?? []) {
    const secret = await deps.objects.get("Secret", { namespace, name }, signal);
    const text = secret?.text[".dockerconfigjson"] ?? secret?.text[".dockercfg"];
    if (text !== undefined) {
      keyring.push(...parseKeyring(text, { uid: secret?.uid ?? "", namespace, name }));
      continue;
    }
    deps.events.event(
      podTarget(pod),
      "Warning",
      "FailedToRetrieveImagePullSecret",
      `Unable to retrieve some image pull secrets (${name}); attempting to pull the image may not succeed.`,
    );
  }
  return keyring;
}

async function envFile(
  { deps, pod }: Start,
  reference: { readonly volumeName: string; readonly path: string },
): Promise<EnvFile> {
  const { path, volumeName } = reference;
  const volume = (pod.spec?.volumes ?? []).find(({ name }) => name === volumeName);
  // The API knows no other kind of volume here (KEP-3721), and no other is safe to read.
  if (volume?.emptyDir === undefined) return { kind: "noVolume" };
  const root = deps.volumes.paths(pod.metadata.uid).volume("emptyDir", volumeName);
  const file = join(root, path);
  try {
    const text = await readVolumeFile(root, path, maxEnvFileBytes);
    return text === undefined
      ? { kind: "missing", path: file }
      : { kind: "text", path: file, text };
  } catch (error) {
    return { kind: "unreadable", path: file, problem: errorMessage(error) };
  }
}

async function envFiles(start: Start): Promise<ReadonlyMap<string, EnvFile>> {
  const out = new Map<string, EnvFile>();
  for (const reference of environmentFiles(start.action.entry.container)) {
    const key = `${reference.volumeName}/${reference.path}`;
    if (!out.has(key)) out.set(key, await envFile(start, reference));
  }
  return out;
}

async function environmentOf(start: Start): Promise<ReadonlyMap<string, string>> {
  const { action, deps, observed, pod, signal } = start;
  const { container } = action.entry;
  const { namespace = "" } = pod.metadata;
  const references = environmentReferences(container);
  const configMaps = new Map<string, Readonly<Record<string, string>>>();
  const secrets = new Map<string, Readonly<Record<string, string>>>();
  for (const name of references.configMaps) {
    const object = await deps.objects.get("ConfigMap", { namespace, name }, signal);
    if (object !== undefined) configMaps.set(name, object.text);
  }
  for (const name of references.secrets) {
    const object = await deps.objects.get("Secret", { namespace, name }, signal);
    if (object !== undefined) secrets.set(name, object.text);
  }
  const services = deps.services();
  if (services === undefined) {
    throw new ContainerConfigError(
      "services have not yet been read at least once, cannot construct envvars",
    );
  }
  const files = await envFiles(start);
  return containerEnvironment(pod, container, {
    file: (volumeName, path) => files.get(`${volumeName}/${path}`),
    configMap: (name) => configMaps.get(name),
    secret: (name) => secrets.get(name),
    services: serviceEnvironment(services, namespace, pod.spec?.enableServiceLinks ?? true),
    addresses: { podIPs: podIPs(start), hostIPs: observed.hostIPs },
    allocatable: deps.allocatable(),
  });
}

async function seccompProfiles(start: Start): Promise<ReadonlyMap<string, string>> {
  const { action, deps, pod } = start;
  const out = new Map<string, string>();
  const root = join(deps.config.rootDir, "seccomp");
  for (const name of localhostSeccompProfiles(pod, action.entry.container)) {
    const path = normalize(join(root, name));
    if (!path.startsWith(`${root}/`)) {
      throw new ContainerConfigError(`seccomp profile "${name}" is not below ${root}`);
    }
    try {
      out.set(name, await readFile(path, "utf8"));
    } catch (error) {
      throw new ContainerConfigError(
        `cannot load seccomp profile ${path}: ${errorMessage(error)}`,
        { cause: error },
      );
    }
  }
  return out;
}

async function terminationLog(start: Start): Promise<Mount | undefined> {
  const { action, deps, pod } = start;
  const { container } = action.entry;
  const path = container.terminationMessagePath ?? "/dev/termination-log";
  if (path === "") return undefined;
  const paths = deps.volumes.paths(pod.metadata.uid);
  const hostPath = paths.terminationLog(container.name, action.attempt);
  await makeDirectory(dirname(hostPath), 0o750);
  await writeFile(hostPath, "");
  // Whatever the umask: the container's user writes it.
  await chmod(hostPath, 0o666);
  const target = containerPath(path);
  return { hostPath, containerPath: target, readOnly: false, propagation: "private" };
}

async function filesOf(start: Start): Promise<readonly Mount[]> {
  const { action, deps, pod } = start;
  const { config } = deps;
  const paths = deps.volumes.paths(pod.metadata.uid);
  const warnings = await writePodFiles(pod, paths, {
    podIPs: podIPs(start),
    nodeName: config.nodeName,
    resolvConf: config.resolvConf,
    cluster: {
      dns: config.clusterDNS,
      domain: config.clusterDomain,
      nodeIPs: start.observed.hostIPs,
    },
  });
  for (const { message, reason } of warnings) {
    deps.events.event(podTarget(pod), "Warning", reason, message);
  }
  return podFileMounts(action.entry.container, paths);
}

/** Whether the pod's runtime handler makes whole trees of mounts read-only; asked for by few, so looked up for them. */
async function recursiveReadOnly({ action, deps, pod, signal }: Start): Promise<boolean> {
  const { volumeMounts = [] } = action.entry.container;
  if (!volumeMounts.some(asksForRecursiveReadOnly)) return false;
  const { features, recursiveReadOnlyHandlers } = deps.runtimeInfo();
  const handler = await deps.runtimeClasses.handler(pod.spec?.runtimeClassName, signal);
  return recursiveReadOnlyHandlers?.has(handler) ?? features.has("recursiveReadOnlyMounts");
}

/** The container whose processes an ephemeral one asked to see. */
function targetContainer({ action, observed }: Start): string | undefined {
  const { targetContainerName = "" } = action.entry;
  if (targetContainerName === "") return undefined;
  const records = recordsOf(observed.record, targetContainerName);
  const target = records.find(({ state }) => state.kind === "running") ?? records[0];
  if (target !== undefined) return target.id;
  throw new ContainerConfigError(`unable to find target container ${targetContainerName}`);
}

/** The container's volumes; where its images are shown is known already. */
async function volumeMounts(
  { action, deps, pod, signal }: Start,
  given: Parameters<PodDeps["volumes"]["mounts"]>[2],
): Promise<readonly Mount[]> {
  try {
    return await deps.volumes.mounts(pod, action.entry, given, signal);
  } catch (error) {
    if (!(error instanceof ImageSubPathError)) throw error;
    throw new StartError("CreateContainerError", error.message, { cause: error });
  }
}

async function configure(
  start: Start,
  image: Image,
  images: ReadonlyMap<string, ShownImage>,
): Promise<ContainerConfig> {
  const { action, deps, pod } = start;
  const { entry } = action;
  const targetContainerID = targetContainer(start);
  verifyRunAsNonRoot(pod, entry.container, image.user);
  const [environment, readOnlyBelow, log, files, profiles] = await Promise.all([
    environmentOf(start),
    recursiveReadOnly(start),
    terminationLog(start),
    filesOf(start),
    seccompProfiles(start),
  ]);
  const volumes = await volumeMounts(start, {
    environment,
    recursiveReadOnly: readOnlyBelow,
    images,
  });
  // The engine takes one mount for each path; where a volume claims that of the last words, those lie on top.
  const mounts = volumes.filter((mount) => mount.containerPath !== log?.containerPath);
  const memory = deps.node.node()?.status?.capacity?.["memory"];
  const security = linuxSecurityContext(pod, entry.container, profiles, deps.config.seccompDefault);
  const groups = [...security.supplementalGroups, ...deps.volumes.groups(pod)];
  return containerConfig(
    pod,
    entry,
    {
      attempt: action.attempt,
      image,
      environment,
      mounts: [...mounts, ...files, ...(log === undefined ? [] : [log])],
      devices: deps.volumes.devices(pod, entry),
      security: { ...security, supplementalGroups: [...new Set(groups)] },
      targetContainerID,
      backoffMs: action.backoffMs,
      terminationMessageFile: log?.hostPath ?? "",
    },
    {
      nodeMemoryBytes: memory === undefined ? 0 : wholeUnits(memory),
      podPidsLimit: deps.config.podPidsLimit,
      logMaxBytes: deps.config.containerLogMaxBytes,
      logMaxFiles: deps.config.containerLogMaxFiles,
    },
  );
}

/** Gives what `work` throws the reason to show, unless it has a better one of its own. */
async function withReason<T>(
  reason: string,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (signal.aborted && isAbort(error)) throw error;
    if (error instanceof StartError) throw error;
    if (error instanceof ImageError) {
      throw new StartError(error.reason, error.message, {
        cause: error,
        ...(error.retryAt === undefined ? {} : { retryAt: error.retryAt }),
      });
    }
    throw new StartError(reason, errorMessage(error), { cause: error });
  }
}

/** As every container that is stopped while its pod goes on: preStop, the pod's grace. */
async function stopAfterHook(
  { deps, observed, pod, signal, state }: Start,
  containerID: string,
): Promise<void> {
  const { containers } = await deps.runtime.podRecord(state.uid, signal);
  const record = containers.find(({ id }) => id === containerID);
  if (record === undefined) return;
  const graceSeconds = podGracePeriodSeconds(pod);
  const request = { deps, state, pod, observed, graceSeconds };
  await stopContainer(request, record, "FailedPostStartHook", signal);
}

async function postStart(start: Start, containerID: string): Promise<void> {
  const { action, deps, pod, signal, state } = start;
  const handler = action.entry.container.lifecycle?.postStart;
  if (handler === undefined) return;
  state.starting.add(containerID);
  try {
    const { clock, events, runtime } = deps;
    const podIP = podIPs(start)[0] ?? "127.0.0.1";
    const context = { runtime, clock, events, pod, containerID, entry: action.entry, podIP };
    await runHook(handler, context, signal);
  } catch (error) {
    if (signal.aborted && isAbort(error)) throw error;
    const target = containerTarget(pod, action.entry);
    deps.logger.log("warn", "postStart hook failed", {
      podUID: state.uid,
      container: action.entry.container.name,
      error: errorMessage(error),
    });
    deps.events.event(target, "Warning", "FailedPostStartHook", "PostStartHook failed");
    await stopAfterHook(start, containerID);
    throw new StartError("PostStartHookError", "PostStartHook failed", { cause: error });
  } finally {
    state.starting.delete(containerID);
  }
}

async function run(start: Start): Promise<void> {
  const { action, deps, pod, signal } = start;
  const { entry, sandbox } = action;
  const target = containerTarget(pod, entry);
  const { image, shown } = await withReason("ErrImagePull", signal, async () => {
    const keyring = await pullSecrets(start);
    const shown = await start.volumeImages.of(entry, keyring, signal);
    return { shown, image: await deps.puller.ensure(pod, entry, keyring, signal) };
  });
  const images = await withReason("CreateContainerError", signal, async () =>
    deps.imageVolumes.show(pod, shown, signal),
  );
  const config = await withReason("CreateContainerConfigError", signal, async () =>
    configure(start, image, images),
  );
  await deps.step("createContainer");
  const created = await withReason("CreateContainerError", signal, async () =>
    deps.imageVolumes.counted(images, async () =>
      deps.runtime.createContainer(sandbox, config, signal),
    ),
  );
  deps.events.event(target, "Normal", "Created", "Container created");
  await deps.step("startContainer");
  await withReason("RunContainerError", signal, async () => {
    await deps.runtime.startContainer(created.id, signal);
  });
  await deps.cgroups.adjustContainer(pod, entry.container, created.id);
  deps.events.event(target, "Normal", "Started", "Container started");
  await postStart(start, created.id);
}

/** Logs once what the message leaves out, because everybody who may read the pod sees that. */
function logHiddenCause(deps: PodDeps, state: PodEntry, name: string, error: StartError): void {
  const shown = error.cause;
  if (!(shown instanceof ContainerConfigError) || shown.cause === undefined) return;
  if (state.waiting.get(name)?.message === error.message) return;
  deps.logger.log("warn", "container cannot be configured", {
    podUID: state.uid,
    container: name,
    error: `${error.message}: ${errorMessage(shown.cause)}`,
  });
}

/**
 * Brings one container from its spec to running: image, configuration, create, start, postStart.
 *
 * @throws {StartError} with the reason its status shows; `AbortError`.
 */
export async function startContainer(
  deps: PodDeps,
  state: PodEntry,
  pod: AssignedPod,
  context: {
    readonly observed: ObservedPod;
    readonly action: StartAction;
    readonly volumeImages: PodImages;
  },
  signal: AbortSignal,
): Promise<void> {
  const { action } = context;
  const { name } = action.entry.container;
  try {
    await run({ deps, state, pod, ...context, signal });
    state.waiting.delete(name);
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    logHiddenCause(deps, state, name, error);
    state.waiting.set(name, { reason: error.reason, message: error.message });
    const bare = ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"].includes(error.reason);
    deps.events.event(
      containerTarget(pod, action.entry),
      "Warning",
      "Failed",
      `Error: ${bare ? error.reason : error.message}`,
    );
    throw error;
  }
}
