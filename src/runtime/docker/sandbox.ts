import { createHash } from "node:crypto";

import { asRecord } from "../../lib/guard.ts";
import { isRuntimeFailure, RuntimeError } from "../errors.ts";
import type { PodSandboxConfig, SandboxRecord } from "../types.ts";
import { sandboxCreateBody } from "./container-config.ts";
import { deleteContainer, killContainer, startContainer } from "./container-calls.ts";
import type { DockerContext } from "./context.ts";
import { alternativeName, label, sandboxName } from "./labels.ts";
import { removeLogLinks } from "./log-links.ts";
import { adoptHolder, createNamed } from "./named-containers.ts";
import { asListed, sandboxRecord } from "./records.ts";

/** Creates and starts a sandbox, or adopts what an earlier call with the same (uid, attempt) left. */
export async function runPodSandbox(
  context: DockerContext,
  config: PodSandboxConfig,
  signal: AbortSignal,
): Promise<SandboxRecord> {
  const id = await createOrAdopt(context, config, signal);
  await startContainer(context, id, signal);
  context.observer.invalidate(id);
  const inspected = await context.observer.inspect(id, signal);
  if (inspected.status !== "running" || inspected.pid === 0) {
    throw new RuntimeError(
      "StartFailed",
      `the sandbox of pod ${config.metadata.namespace}/${config.metadata.name} ended right after its start${inspected.error === "" ? "" : `: ${inspected.error}`}`,
      { exitCode: inspected.exitCode },
    );
  }
  return sandboxRecord(asListed(inspected), inspected);
}

async function createOrAdopt(
  context: DockerContext,
  config: PodSandboxConfig,
  signal: AbortSignal,
): Promise<string> {
  const { pauseImage, owner } = context;
  const { facts } = await context.host(signal);
  const image = await pauseImage.name(signal);
  const body = sandboxCreateBody(config, { owner, pauseImage: image, host: facts });
  const specHash = createHash("sha256").update(JSON.stringify(body)).digest("hex").slice(0, 16);
  const labels = { ...asRecord(body["Labels"], "Labels"), [label.specHash]: specHash };
  let name = sandboxName(config.metadata);
  for (let tries = 0; ; tries += 1) {
    try {
      const podUID = config.metadata.uid;
      const wanted = { what: "sandbox", name, podUID, body: { ...body, Labels: labels } } as const;
      return (await createNamed(context, wanted, signal)).id;
    } catch (error) {
      if (tries >= 3) throw error;
      if (isRuntimeFailure(error, "ImageMissing")) {
        // First start on this host, or somebody pruned it.
        await pauseImage.load(signal);
      } else if (isRuntimeFailure(error, "AlreadyExists")) {
        const adopted = await adopt(context, { name, config, specHash }, signal);
        if (adopted !== undefined) return adopted;
        if (tries === 2) name = alternativeName(name, context.random);
      } else {
        throw error;
      }
    }
  }
}

/** See {@link adoptHolder}. */
function adopt(
  context: DockerContext,
  wanted: {
    readonly name: string;
    readonly config: PodSandboxConfig;
    readonly specHash: string;
  },
  signal: AbortSignal,
): Promise<string | undefined> {
  const { name, specHash } = wanted;
  const { uid, attempt } = wanted.config.metadata;
  return adoptHolder(
    context,
    {
      what: "sandbox",
      name,
      podUID: uid,
      labels: { [label.type]: "podsandbox", [label.attempt]: String(attempt) },
      // What an interrupted call left: good as it is, unless it was made from another spec.
      isUsable: ({ status, labels }) => status === "created" && labels[label.specHash] === specHash,
    },
    signal,
  );
}

/** Kills the pause process. Success when it does not run, or is gone. */
export async function stopPodSandbox(
  context: DockerContext,
  sandboxID: string,
  signal: AbortSignal,
): Promise<void> {
  await killContainer(context, sandboxID, signal);
}

/** Removes what is left of the pod's containers, then the sandbox. */
export async function removePodSandbox(
  context: DockerContext,
  sandboxID: string,
  signal: AbortSignal,
): Promise<void> {
  const { ours } = await context.observer.list([`${label.sandboxID}=${sandboxID}`], signal);
  await Promise.all(
    ours.map(async ({ id, labels }) => {
      await deleteContainer(context, id, signal);
      await removeLogLinks(id, labels, context.logDirs);
    }),
  );
  await deleteContainer(context, sandboxID, signal);
}
