import type { EventRecorder, EventType } from "../../api/event-types.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort, RemoraError } from "../../lib/errors.ts";
import type { Image, ImageService, RegistryAuth } from "../../runtime/types.ts";
import type { PodContainer } from "../spec/containers.ts";
import { imageReference, pullPolicy } from "../spec/image-name.ts";
import { containerTarget } from "../pods/event-target.ts";
import type { StepHook } from "../steps.ts";
import type { AssignedPod } from "../types.ts";
import { credentialsFor, type Keyring } from "./credentials.ts";

/** An image is not there; `reason` is the container's waiting reason. */
export class ImageError extends RemoraError {
  readonly code = "REMORA_IMAGE";
  override readonly retryable = true;
  readonly reason:
    | "ErrImagePull"
    | "ImagePullBackOff"
    | "ErrImageNeverPull"
    | "InvalidImageName"
    | "ImageInspectError";
  /** When a new try makes sense, milliseconds since the epoch; undefined when time alone will not help. */
  readonly retryAt: number | undefined;

  constructor(
    reason: ImageError["reason"],
    message: string,
    options?: ErrorOptions & { readonly retryAt?: number },
  ) {
    super(message, options);
    this.reason = reason;
    this.retryAt = options?.retryAt;
  }
}

export interface ImagePullerOptions {
  readonly config: Pick<AgentConfig, "imagePullProgressDeadlineMs" | "serializeImagePulls">;
  readonly images: ImageService;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly step: StepHook;
}

interface Failure {
  delayMs: number;
  dueAt: number;
  readonly message: string;
}

interface Pull {
  readonly done: Promise<Image>;
  readonly stop: AbortController;
  users: number;
}

const firstDelayMs = 10_000;
const maxDelayMs = 300_000;

/** Makes images present: policy, back-off per pod and image, one pull for all who want the same. */
export class ImagePuller {
  readonly #options: ImagePullerOptions;
  readonly #failures = new Map<string, Failure>();
  readonly #pulls = new Map<string, Pull>();
  #queue: Promise<unknown> = Promise.resolve();

  constructor(options: ImagePullerOptions) {
    this.#options = options;
  }

  /**
   * The image of a container, pulled when its policy says so.
   *
   * @throws {ImageError} with the reason to show while the container waits.
   */
  async ensure(
    pod: AssignedPod,
    entry: PodContainer,
    keyring: Keyring,
    signal: AbortSignal,
  ): Promise<Image> {
    const name = entry.container.image ?? "";
    const reference = imageReference(name);
    if (reference === undefined) {
      const message = `Failed to apply default image tag "${name}": couldn't parse image name "${name}": invalid reference format`;
      this.#event(pod, entry, "Warning", "InspectFailed", message);
      throw new ImageError("InvalidImageName", message);
    }
    const present = await this.#inspect(pod, entry, reference, signal);
    const policy = pullPolicy(entry.container);
    if (present !== undefined && policy !== "Always") {
      const message = `Container image "${name}" already present on machine and can be accessed by the pod`;
      this.#event(pod, entry, "Normal", "Pulled", message);
      return present;
    }
    if (policy === "Never") {
      const message = `Container image "${name}" is not present with pull policy of Never`;
      this.#event(pod, entry, "Warning", "ErrImageNeverPull", message);
      throw new ImageError("ErrImageNeverPull", message);
    }
    return this.#pullWithBackoff(pod, entry, { name, reference, keyring }, signal);
  }

  /** Forgets the pod's failures. */
  forget(uid: string): void {
    for (const key of this.#failures.keys()) {
      if (key.startsWith(`${uid} `)) this.#failures.delete(key);
    }
  }

  async #inspect(
    pod: AssignedPod,
    entry: PodContainer,
    reference: string,
    signal: AbortSignal,
  ): Promise<Image | undefined> {
    try {
      return await this.#options.images.imageStatus(reference, signal);
    } catch (error) {
      if (isAbort(error) && signal.aborted) throw error;
      const message = `Failed to inspect image "${reference}": ${errorMessage(error)}`;
      this.#event(pod, entry, "Warning", "InspectFailed", message);
      throw new ImageError("ImageInspectError", message, { cause: error });
    }
  }

  async #pullWithBackoff(
    pod: AssignedPod,
    entry: PodContainer,
    image: { readonly name: string; readonly reference: string; readonly keyring: Keyring },
    signal: AbortSignal,
  ): Promise<Image> {
    const { clock, step } = this.#options;
    const key = `${pod.metadata.uid} ${image.reference}`;
    const failure = this.#failures.get(key);
    if (failure !== undefined && clock.now() < failure.dueAt) {
      const message = `Back-off pulling image "${image.name}"`;
      this.#event(pod, entry, "Normal", "BackOff", message);
      throw new ImageError("ImagePullBackOff", `${message}: ErrImagePull: ${failure.message}`, {
        retryAt: failure.dueAt,
      });
    }
    this.#event(pod, entry, "Normal", "Pulling", `Pulling image "${image.name}"`);
    await step("pullImage");
    const started = clock.monotonic();
    try {
      const pulled = await this.#share(image.reference, image.keyring, signal);
      this.#failures.delete(key);
      const took = `${((clock.monotonic() - started) / 1000).toFixed(3)}s`;
      this.#event(
        pod,
        entry,
        "Normal",
        "Pulled",
        `Successfully pulled image "${image.name}" in ${took} (${took} including waiting). Image size: ${pulled.sizeBytes} bytes.`,
      );
      return pulled;
    } catch (error) {
      if (isAbort(error) && signal.aborted) throw error;
      throw this.#failed(pod, entry, { key, name: image.name }, error);
    }
  }

  #failed(
    pod: AssignedPod,
    entry: PodContainer,
    image: { readonly key: string; readonly name: string },
    error: unknown,
  ): ImageError {
    const message = errorMessage(error);
    const before = this.#failures.get(image.key)?.delayMs;
    const delayMs = before === undefined ? firstDelayMs : Math.min(before * 2, maxDelayMs);
    const dueAt = this.#options.clock.now() + delayMs;
    this.#failures.set(image.key, { delayMs, dueAt, message });
    const text = `Failed to pull image "${image.name}": ${message}`;
    this.#event(pod, entry, "Warning", "Failed", text);
    // The next look shows ImagePullBackOff; it need not wait for the end of the delay.
    return new ImageError("ErrImagePull", message, { cause: error, retryAt: dueAt });
  }

  /** One pull per image and keyring; it stops when the last one who wants it has gone. */
  async #share(reference: string, keyring: Keyring, signal: AbortSignal): Promise<Image> {
    const credentials = credentialsFor(reference, keyring);
    const key = JSON.stringify([reference, credentials]);
    let pull = this.#pulls.get(key);
    if (pull === undefined) {
      const stop = new AbortController();
      const done = this.#enqueue(() => this.#pull(reference, credentials, stop.signal));
      pull = { done, stop, users: 0 };
      this.#pulls.set(key, pull);
      const drop = (): void => {
        if (this.#pulls.get(key) === pull) this.#pulls.delete(key);
      };
      done.then(drop, drop);
    }
    pull.users += 1;
    try {
      return await abortable(pull.done, signal);
    } finally {
      pull.users -= 1;
      if (pull.users === 0) {
        pull.stop.abort();
        this.#pulls.delete(key);
      }
    }
  }

  async #enqueue(work: () => Promise<Image>): Promise<Image> {
    if (!this.#options.config.serializeImagePulls) return work();
    const turn = this.#queue.then(work, work);
    this.#queue = turn.catch(() => undefined);
    return turn;
  }

  async #pull(
    reference: string,
    credentials: readonly RegistryAuth[],
    signal: AbortSignal,
  ): Promise<Image> {
    const { config, images } = this.#options;
    const stallMs = config.imagePullProgressDeadlineMs;
    let failure: unknown;
    for (const auth of credentials.length === 0 ? [undefined] : credentials) {
      signal.throwIfAborted();
      try {
        return await images.pullImage(reference, { auth, stallMs }, signal);
      } catch (error) {
        if (isAbort(error) && signal.aborted) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  #event(
    pod: AssignedPod,
    entry: PodContainer,
    type: EventType,
    reason: string,
    message: string,
  ): void {
    this.#options.events.event(containerTarget(pod, entry), type, reason, message);
  }
}

async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => {
    const reason: unknown = signal.reason;
    aborted.reject(reason instanceof Error ? reason : new DOMException("aborted", "AbortError"));
  };
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
