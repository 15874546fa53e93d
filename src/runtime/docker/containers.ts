import { isRuntimeFailure, RuntimeError } from "../errors.ts";
import type { ContainerConfig, Mount, SandboxRecord } from "../types.ts";
import { deleteContainer, killContainer, startContainer } from "./container-calls.ts";
import { containerCreateBody, type CreateBody } from "./container-config.ts";
import type { DockerContext } from "./context.ts";
import { checkAppArmorProfile } from "./app-armor.ts";
import { type Accounts, needsAccounts, resolveUser } from "./image-accounts.ts";
import { alternativeName, containerName, label } from "./labels.ts";
import { ensureLogLinks, removeLogLinks } from "./log-links.ts";
import { adoptHolder, createNamed, type CreatedContainer } from "./named-containers.ts";
import type { InspectedContainer } from "./records.ts";

/** Creates (or adopts) the container of (uid, name, attempt); does not start it. */
export async function createContainer(
  context: DockerContext,
  sandbox: SandboxRecord,
  config: ContainerConfig,
  signal: AbortSignal,
): Promise<CreatedContainer> {
  const body = await createBody(context, sandbox, config, signal);
  let name = containerName(sandbox.metadata, config.name, config.attempt);
  for (let tries = 0; ; tries += 1) {
    try {
      const podUID = sandbox.metadata.uid;
      const wanted = { what: "container", name, podUID, body } as const;
      const created = await createNamed(context, wanted, signal);
      await checkImageParts(context, { id: created.id, podUID }, config.mounts, signal);
      return created;
    } catch (error) {
      if (!isRuntimeFailure(error, "AlreadyExists") || tries >= 3) throw error;
      const adopted = await adopt(context, { name, sandbox, config }, signal);
      if (adopted !== undefined) return { id: adopted, warnings: [] };
      if (tries === 2) name = alternativeName(name, context.random);
    }
  }
}

/** What engines say of a part of an image that they do not find, or that a link leads out of the image. */
const noSuchPart = /cannot access path|escapes the base directory/i;

/**
 * Why the engine cannot show what is mounted at a path of a container; undefined where it can. It would say so itself only
 * when it starts the container, which would then count as one that ran.
 */
async function mountProblem(
  { client }: DockerContext,
  id: string,
  containerPath: string,
  signal: AbortSignal,
): Promise<RuntimeError | undefined> {
  const op = "look at mount";
  const path = `/containers/${id}/archive`;
  const call = { op, path, query: { path: containerPath }, timeoutMs: 120_000 };
  // The first way is cheap, also for large trees; only the second one gives a reason.
  for (const method of ["HEAD", "GET"] as const) {
    try {
      await client.call({ ...call, method }, signal);
      return undefined;
    } catch (error) {
      if (!isRuntimeFailure(error, "NotFound", "Internal", "InvalidSpec")) throw error;
      if (method === "GET") return error as RuntimeError;
    }
  }
  return undefined;
}

/**
 * Looks for the parts of images that a container is shown.
 *
 * @throws {RuntimeError} `ImageMountFailed`; the container is removed again.
 */
async function checkImageParts(
  context: DockerContext,
  { id, podUID }: { readonly id: string; readonly podUID: string },
  mounts: readonly Mount[],
  signal: AbortSignal,
): Promise<void> {
  for (const { containerPath, image } of mounts) {
    if (image === undefined || image.subPath === "") continue;
    const cause = await mountProblem(context, id, containerPath, signal);
    // Another mount of the container may be what is wrong: its start tells.
    if (cause === undefined || !noSuchPart.test(cause.message)) continue;
    context.observer.doubt(podUID);
    await deleteContainer(context, id, signal);
    throw new RuntimeError(
      "ImageMountFailed",
      `failed to mount image volume at "${containerPath}": ${image.id} has no "${image.subPath}" that could be shown`,
      { cause },
    );
  }
}

/** The image's accounts. Where they only serve to tell who runs, doing without is better than not to run. */
async function readAccounts(
  context: DockerContext,
  config: ContainerConfig,
  signal: AbortSignal,
): Promise<Accounts | undefined> {
  const { accounts } = context;
  const { imageID } = config;
  try {
    const glanced = needsAccounts(config.security)
      ? undefined
      : await accounts.glance(imageID, signal);
    return glanced ?? (await accounts.read(imageID, signal));
  } catch (error) {
    if (signal.aborted || needsAccounts(config.security)) throw error;
    context.logger.log("warn", "the image's accounts cannot be read", {
      image: config.imageID,
      error: String(error),
    });
    return undefined;
  }
}

async function createBody(
  context: DockerContext,
  sandbox: SandboxRecord,
  config: ContainerConfig,
  signal: AbortSignal,
): Promise<CreateBody> {
  const { facts } = await context.host(signal);
  await checkAppArmorProfile(config.security);
  const accounts = await readAccounts(context, config, signal);
  const user = resolveUser(config.security, accounts);
  return containerCreateBody(config, { owner: context.owner, sandbox, host: facts, user });
}

/** See {@link adoptHolder}. */
function adopt(
  context: DockerContext,
  wanted: {
    readonly name: string;
    readonly sandbox: SandboxRecord;
    readonly config: ContainerConfig;
  },
  signal: AbortSignal,
): Promise<string | undefined> {
  const { name, sandbox, config } = wanted;
  return adoptHolder(
    context,
    {
      what: "container",
      name,
      podUID: sandbox.metadata.uid,
      labels: {
        [label.type]: "container",
        [label.containerName]: config.name,
        [label.attempt]: String(config.attempt),
      },
      // Left by an interrupted create. One that has run keeps its record of how it ended: same attempt means same run.
      // What the engine has mounted for it of other images does not outlive a restart.
      isUsable: ({ labels, imageID, mountedImages }) =>
        mountedImages.length === 0 &&
        labels[label.specHash] === config.specHash &&
        labels[label.sandboxID] === sandbox.id &&
        imageID === config.imageID,
    },
    signal,
  );
}

/** Starts a container and links its log file, also when the start failed. */
export async function startPodContainer(
  context: DockerContext,
  id: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    await startContainer(context, id, signal);
  } catch (error) {
    if (isRuntimeFailure(error, "StartFailed")) await link(context, id, signal);
    throw error;
  }
  await link(context, id, signal);
}

async function link(context: DockerContext, id: string, signal: AbortSignal): Promise<void> {
  try {
    await ensureLogLinks(await context.observer.inspect(id, signal), context.logDirs);
  } catch (error) {
    if (signal.aborted) throw error;
    // The container runs; the next look at it makes the link.
    context.logger.log("warn", "log link cannot be made", {
      containerID: id,
      error: String(error),
    });
  }
}

/** Stop signal, then SIGKILL after the grace; returns when the process is gone. */
export async function stopContainer(
  context: DockerContext,
  id: string,
  gracePeriodSeconds: number,
  signal: AbortSignal,
): Promise<void> {
  const grace = Math.max(0, Math.ceil(gracePeriodSeconds));
  // Kill also cuts a running stop short, and with no grace Kubernetes sends no other signal.
  if (grace === 0) return killContainer(context, id, signal);
  try {
    await context.client.call(
      {
        op: "stop container",
        method: "POST",
        path: `/containers/${id}/stop`,
        query: { t: grace },
        lane: "wait",
        timeoutMs: (grace + 30) * 1000,
      },
      signal,
    );
  } catch (error) {
    if (!isRuntimeFailure(error, "NotFound")) throw error;
  } finally {
    context.observer.invalidate(id);
  }
}

/** Removes a container, its anonymous volumes and the links to its log. */
export async function removeContainer(
  context: DockerContext,
  id: string,
  signal: AbortSignal,
): Promise<void> {
  let inspected: InspectedContainer;
  try {
    inspected = await context.observer.inspect(id, signal);
  } catch (error) {
    if (isRuntimeFailure(error, "NotFound")) return;
    // A stuck container may not answer; removing it may still work.
    if (!isRuntimeFailure(error, "Timeout", "Internal")) throw error;
    await deleteContainer(context, id, signal);
    return;
  }
  await deleteContainer(context, id, signal);
  await removeLogLinks(inspected.id, inspected.labels, context.logDirs);
}
