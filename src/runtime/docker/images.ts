import type { Readable } from "node:stream";

import { errorMessage } from "../../lib/errors.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";
import { isRuntimeFailure, RuntimeError } from "../errors.ts";
import type { Image, ImageService, PullProgress, RegistryAuth } from "../types.ts";
import type { DockerContext } from "./context.ts";
import {
  classifyPullError,
  isImageOf,
  parseImage,
  parsePullLine,
  type PullProblem,
} from "./image-records.ts";
import { layerDirectories } from "./layer-files.ts";
import { LineSplitter } from "./lines.ts";
import { imageMountsSince } from "./mounts.ts";
import { pauseRepository } from "./pause-image.ts";
import { type ListedContainer, parseListed } from "./records.ts";
import { PullSum } from "./pull-progress.ts";
import { formatReference, type ImageReference, parseReference } from "./reference.ts";

/** The images of one Docker Engine. */
export function createImageService(context: DockerContext): ImageService {
  /** By id: all but tags and digests never changes. */
  const known = new Map<string, Image>();
  return {
    listImages: (signal) => listImages(context, known, signal),
    imageStatus: (reference, signal) => imageStatus(context, parseReference(reference), signal),
    pullImage: (reference, options, signal) => pullImage(context, reference, options, signal),
    removeImage: (id, signal) => removeImage(context, id, signal),
    imageLayers: (id, signal) => imageLayers(context, id, signal),
  };
}

async function inspectImage(
  context: DockerContext,
  name: string,
  signal: AbortSignal,
): Promise<Image | undefined> {
  try {
    return parseImage(
      await context.client.call(
        { op: "inspect image", method: "GET", path: `/images/${name}/json` },
        signal,
      ),
    );
  } catch (error) {
    if (isRuntimeFailure(error, "ImageMissing", "NotFound")) return undefined;
    throw error;
  }
}

async function imageLayers(
  context: DockerContext,
  id: string,
  signal: AbortSignal,
): Promise<readonly string[] | undefined> {
  const call = { op: "inspect image", method: "GET", path: `/images/${id}/json` } as const;
  return layerDirectories(await context.client.call(call, signal));
}

async function imageStatus(
  context: DockerContext,
  reference: ImageReference,
  signal: AbortSignal,
): Promise<Image | undefined> {
  const image = await inspectImage(context, formatReference(reference), signal);
  return image !== undefined && isImageOf(image, reference) ? image : undefined;
}

async function listImages(
  context: DockerContext,
  known: Map<string, Image>,
  signal: AbortSignal,
): Promise<readonly Image[]> {
  const response = await context.client.call(
    { op: "list images", method: "GET", path: "/images/json" },
    signal,
  );
  const entries = (Array.isArray(response) ? response : []).filter(isRecord);
  const images = await Promise.all(
    entries.map(async (entry) => {
      const id = optionalString(entry["Id"]) ?? "";
      let image = known.get(id);
      if (image === undefined) {
        // The list knows neither user nor stop signal.
        image = await inspectImage(context, id, signal);
        if (image === undefined) return undefined;
        known.set(id, image);
      }
      const { tags, digests } = parseImage({ ...entry, Id: id });
      const pinned = tags.some((tag) => tag.startsWith(`${pauseRepository}:`));
      return { ...image, tags, digests, ...(pinned ? { pinned } : {}) };
    }),
  );
  const present = images.filter((image) => image !== undefined);
  const ids = new Set(present.map(({ id }) => id));
  for (const id of known.keys()) if (!ids.has(id)) known.delete(id);
  return present;
}

/** `X-Registry-Auth`: URL-safe base64 of JSON; an empty object when anonymous. */
export function registryAuthHeader(auth: RegistryAuth | undefined): string {
  const credentials = {
    username: auth?.username,
    password: auth?.password,
    identitytoken: auth?.identityToken,
    registrytoken: auth?.registryToken,
    serveraddress: auth?.serverAddress,
  };
  // The engine's decoder wants the padding, which base64url leaves out.
  return Buffer.from(JSON.stringify(credentials))
    .toString("base64")
    .replaceAll("+", "-")
    .replaceAll("/", "_");
}

const prefixes: Readonly<Record<PullProblem, string>> = {
  notFound: "image not found",
  auth: "access to the image is denied",
  network: "the registry cannot be reached",
  registry: "the registry failed",
};

function pullFailed(message: string, cause?: unknown): RuntimeError {
  const problem = classifyPullError(message);
  return new RuntimeError("ImagePullFailed", `${prefixes[problem]}: ${message}`, {
    ...(cause === undefined ? {} : { cause }),
    pullProblem: problem,
  });
}

async function pullImage(
  context: DockerContext,
  name: string,
  options: Parameters<ImageService["pullImage"]>[1],
  signal: AbortSignal,
): Promise<Image> {
  const reference = parseReference(name);
  if (reference.kind === "id") {
    throw new RuntimeError("ImagePullFailed", `an image id cannot be pulled: ${name}`);
  }
  const { clock } = context;
  const stalled = new AbortController();
  const done = new AbortController();
  const within = AbortSignal.any([signal, stalled.signal]);
  let progressAt = clock.monotonic();
  const watch = async (): Promise<void> => {
    for (;;) {
      const left = progressAt + options.stallMs - clock.monotonic();
      if (left <= 0) {
        stalled.abort(new DOMException("no progress", "TimeoutError"));
        return;
      }
      await clock.sleep(left, done.signal);
    }
  };
  const watching = watch().catch(() => undefined);
  try {
    const stream = await context.client.open(
      {
        op: "pull image",
        method: "POST",
        path: "/images/create",
        query: { fromImage: reference.repository, tag: reference.digest ?? reference.tag },
        headers: { "X-Registry-Auth": registryAuthHeader(options.auth) },
        // The stall watch above decides; the headers come after the registry's first answer.
        timeoutMs: options.stallMs,
      },
      within,
    );
    await readPullStream(
      stream,
      () => {
        progressAt = clock.monotonic();
      },
      options.onProgress,
    );
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (stalled.signal.aborted) {
      throw pullFailed(`no progress for ${options.stallMs / 1000} s (i/o timeout)`, error);
    }
    if (isRuntimeFailure(error, "Unavailable", "ImagePullFailed", "InvalidSpec")) throw error;
    throw pullFailed(errorMessage(error).replace(/^pull image: /, ""), error);
  } finally {
    done.abort();
    await watching;
  }
  const image = await imageStatus(context, reference, signal);
  if (image === undefined) {
    throw pullFailed(`the engine reported success, but ${name} is not present`);
  }
  return image;
}

async function readPullStream(
  stream: Readable,
  onMove: () => void,
  onProgress: ((progress: PullProgress) => void) | undefined,
): Promise<void> {
  const splitter = new LineSplitter();
  const sum = new PullSum();
  const take = (lines: readonly string[]): void => {
    for (const line of lines) {
      const parsed = parsePullLine(line);
      if (parsed.kind === "error") throw pullFailed(parsed.message);
      if (parsed.kind === "progress") onMove();
      sum.note(parsed.line);
    }
    const { progress } = sum;
    if (progress !== undefined) onProgress?.(progress);
  };
  for await (const chunk of stream) take(splitter.push(chunk as Uint8Array));
  take(splitter.end());
}

async function containersWith(
  { client }: DockerContext,
  filters: Readonly<Record<string, readonly string[]>>,
  signal: AbortSignal,
): Promise<readonly ListedContainer[]> {
  const response = await client.call(
    {
      op: "list containers",
      method: "GET",
      path: "/containers/json",
      query: { all: 1, filters: JSON.stringify(filters) },
    },
    signal,
  );
  return (Array.isArray(response) ? response : []).map((entry) => parseListed(entry));
}

/** Ids of the containers that are made of an image or are shown it; the engine protects it for the former only. */
async function usersOf(
  context: DockerContext,
  imageID: string,
  signal: AbortSignal,
): Promise<ReadonlySet<string>> {
  const made = await containersWith(context, { ancestor: [imageID] }, signal);
  const { api } = await context.client.version(signal);
  const all = api < imageMountsSince ? [] : await containersWith(context, {}, signal);
  const shown = all.filter(({ mountedImages }) => mountedImages.includes(imageID));
  return new Set([...made, ...shown].map(({ id }) => id));
}

/** Removes all names of an image, then the image. @throws {RuntimeError} `WrongState` while a container uses it. */
async function removeImage(context: DockerContext, id: string, signal: AbortSignal): Promise<void> {
  const reference = parseReference(id);
  const image = await imageStatus(context, reference, signal);
  if (image === undefined) return;
  // Asked first: otherwise the names would be gone before the engine refuses.
  const users = await usersOf(context, image.id, signal);
  if (users.size > 0) {
    throw new RuntimeError(
      "WrongState",
      `image ${image.id} is used by ${users.size} container(s) and cannot be removed`,
    );
  }
  for (const name of [...image.tags, ...image.digests, image.id]) {
    try {
      await context.client.call(
        {
          op: "remove image",
          method: "DELETE",
          path: `/images/${name}`,
          timeoutMs: 120_000,
        },
        signal,
      );
    } catch (error) {
      if (!isRuntimeFailure(error, "NotFound", "ImageMissing")) throw error;
    }
  }
}
