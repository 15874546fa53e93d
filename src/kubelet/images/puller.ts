import type { EventRecorder, EventTarget, EventType } from "../../api/event-types.ts";
import type { ImageVolumeSource } from "../../api/types.gen.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort, RemoraError } from "../../lib/errors.ts";
import type { Image, ImageService } from "../../runtime/types.ts";
import type { PodContainer } from "../spec/containers.ts";
import {
  imageReference,
  type PullPolicy,
  pullPolicy,
  volumePullPolicy,
} from "../spec/image-name.ts";
import { containerTarget, podTarget } from "../pods/event-target.ts";
import type { StepHook } from "../steps.ts";
import type { AssignedPod, ImagePull } from "../types.ts";
import type { CredentialProviders } from "./credential-providers.ts";
import { type Credential, credentialsFor, type Keyring, repositoryOf } from "./credentials.ts";
import { nodeKeyring } from "./node-credentials.ts";
import { type Pulled, PullQueue, type PullQueueConfig } from "./pull-queue.ts";
import { PullRecords } from "./pull-records.ts";
import { PullsUnderWay } from "./pulls-under-way.ts";

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
  readonly config: PullQueueConfig &
    Pick<
      AgentConfig,
      "rootDir" | "imagePullCredentialsVerificationPolicy" | "preloadedImagesVerificationAllowlist"
    >;
  readonly images: ImageService;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly step: StepHook;
  /** Default: those below `rootDir`. */
  readonly records?: PullRecords;
  /** What lies on the node; default: the files of `docker login`. */
  readonly nodeKeyring?: () => Promise<Keyring>;
  /** Programs that know credentials; default: none. */
  readonly credentialProviders?: Pick<CredentialProviders, "forget" | "keyringFor"> | undefined;
}

interface Failure {
  delayMs: number;
  /** Milliseconds since the epoch. */
  at: number;
  dueAt: number;
  readonly message: string;
}

/** What somebody asks for. */
interface Request {
  readonly pod: AssignedPod;
  /** What the events are about. */
  readonly target: EventTarget;
  /** As the pod spells it. */
  readonly name: string;
  readonly policy: PullPolicy;
}

/** What is to be made present. */
interface Wanted extends Request {
  /** With its tag. */
  readonly reference: string;
  /** Looked up at most once, and only when somebody asks. */
  readonly credentials: () => Promise<readonly Credential[]>;
}

const firstDelayMs = 10_000;
const maxDelayMs = 300_000;

/** Makes images present: policy, credentials, back-off per pod and image. */
export class ImagePuller {
  readonly #options: ImagePullerOptions;
  readonly #failures = new Map<string, Failure>();
  readonly #queue: PullQueue;
  readonly #underWay = new PullsUnderWay();
  readonly #records: PullRecords;
  readonly #mustVerify: (reference: string, ours: boolean) => boolean;
  #recovered: Promise<void> | undefined;

  constructor(options: ImagePullerOptions) {
    const { clock, config, records } = options;
    this.#options = options;
    this.#queue = new PullQueue({
      ...options,
      onBegin: (reference) => this.#underWay.begin(reference),
      onProgress: (reference, progress) => this.#underWay.progress(reference, progress),
    });
    this.#records = records ?? new PullRecords(config.rootDir, () => clock.now());
    this.#mustVerify = verificationPolicy(config);
  }

  /**
   * The image of a container, pulled when its policy says so.
   *
   * @param keyring What the pod's pull secrets have.
   * @throws {ImageError} with the reason to show while the container waits.
   */
  async ensure(
    pod: AssignedPod,
    entry: PodContainer,
    keyring: Keyring,
    signal: AbortSignal,
  ): Promise<Image> {
    const { container } = entry;
    const target = containerTarget(pod, entry);
    const request = { pod, target, name: container.image ?? "", policy: pullPolicy(container) };
    return this.#ensure(request, keyring, signal);
  }

  /**
   * The same for the image of a volume (KEP-4639).
   *
   * @throws {ImageError} with the reason to show while containers that mount it wait.
   */
  async ensureVolume(
    pod: AssignedPod,
    source: ImageVolumeSource,
    keyring: Keyring,
    signal: AbortSignal,
  ): Promise<Image> {
    const policy = volumePullPolicy(source);
    const request = { pod, target: podTarget(pod), name: source.reference ?? "", policy };
    return this.#ensure(request, keyring, signal);
  }

  async #ensure(request: Request, keyring: Keyring, signal: AbortSignal): Promise<Image> {
    const { name, pod, policy, target } = request;
    const reference = imageReference(name);
    if (reference === undefined) {
      const message = `Failed to apply default image tag "${name}": couldn't parse image name "${name}": invalid reference format`;
      this.#event(target, "Warning", "InspectFailed", message);
      throw new ImageError("InvalidImageName", message);
    }
    let looked: Promise<readonly Credential[]> | undefined;
    const credentials = async (): Promise<readonly Credential[]> => {
      looked ??= this.#lookUp(pod, reference, keyring, signal);
      return looked;
    };
    const wanted: Wanted = { ...request, reference, credentials };
    await this.#recover(signal);
    if (policy === "Always") return this.#pullWithBackoff(wanted, signal);
    const present = await this.#inspect(target, reference, signal);
    if (present !== undefined && (await this.#mayUse(wanted, present))) {
      const message = `Container image "${name}" already present on machine and can be accessed by the pod`;
      this.#event(target, "Normal", "Pulled", message);
      return present;
    }
    if (policy === "Never") {
      // The same words for an image that others have pulled: it is not told that it is there.
      const message = `Container image "${name}" is not present with pull policy of Never`;
      this.#event(target, "Warning", "ErrImageNeverPull", message);
      throw new ImageError("ErrImageNeverPull", message);
    }
    return this.#pullWithBackoff(wanted, signal);
  }

  /** Images that pods wait for. */
  pulls(): readonly ImagePull[] {
    return this.#underWay.list();
  }

  /** Forgets the pod's failures. */
  forget(uid: string): void {
    this.#options.credentialProviders?.forget(uid);
    for (const key of this.#failures.keys()) {
      if (key.startsWith(`${uid} `)) this.#failures.delete(key);
    }
  }

  /** What there is to show, in the order in which it is tried: the pod's own, the node's, its programs'. */
  async #lookUp(
    pod: AssignedPod,
    reference: string,
    keyring: Keyring,
    signal: AbortSignal,
  ): Promise<readonly Credential[]> {
    const { credentialProviders } = this.#options;
    const [node, provided = []] = await Promise.all([
      this.#nodeKeyring(),
      credentialProviders?.keyringFor(pod, repositoryOf(reference), signal),
    ]);
    return [keyring, node, provided].flatMap((each) => credentialsFor(reference, each));
  }

  async #nodeKeyring(): Promise<Keyring> {
    const { config, nodeKeyring: read } = this.#options;
    return read === undefined ? nodeKeyring(config.rootDir) : read();
  }

  /** Once: what a crash interrupted counts as pulled by us when it is there. */
  async #recover(signal: AbortSignal): Promise<void> {
    const { images } = this.#options;
    this.#recovered ??= this.#records
      .recover(async (reference) => (await images.imageStatus(reference, signal))?.id)
      .catch((error: unknown) => {
        this.#recovered = undefined;
        throw error;
      });
    await this.#recovered;
  }

  async #mayUse({ credentials, reference }: Wanted, { id }: Image): Promise<boolean> {
    const ours = await this.#records.isOurs(reference, id);
    if (!this.#mustVerify(reference, ours)) return true;
    return this.#records.mayUse(reference, id, credentials);
  }

  async #inspect(
    target: EventTarget,
    reference: string,
    signal: AbortSignal,
  ): Promise<Image | undefined> {
    try {
      return await this.#options.images.imageStatus(reference, signal);
    } catch (error) {
      if (isAbort(error) && signal.aborted) throw error;
      const message = `Failed to inspect image "${reference}": ${errorMessage(error)}`;
      this.#event(target, "Warning", "InspectFailed", message);
      throw new ImageError("ImageInspectError", message, { cause: error });
    }
  }

  async #pullWithBackoff(wanted: Wanted, signal: AbortSignal): Promise<Image> {
    const { clock, step } = this.#options;
    const { name, pod, reference, target } = wanted;
    const key = `${pod.metadata.uid} ${reference}`;
    const failure = this.#failures.get(key);
    if (failure !== undefined && clock.now() < failure.dueAt) {
      const message = `Back-off pulling image "${name}"`;
      this.#event(target, "Normal", "BackOff", message);
      throw new ImageError("ImagePullBackOff", `${message}: ErrImagePull: ${failure.message}`, {
        retryAt: failure.dueAt,
      });
    }
    this.#event(target, "Normal", "Pulling", `Pulling image "${name}"`);
    await step("pullImage");
    const started = clock.monotonic();
    try {
      const { durationMs, image } = await this.#pull(wanted, signal);
      this.#failures.delete(key);
      const whole = formatDuration(clock.monotonic() - started);
      const message = `Successfully pulled image "${name}" in ${formatDuration(durationMs)} (${whole} including waiting). Image size: ${image.sizeBytes} bytes.`;
      this.#event(target, "Normal", "Pulled", message);
      return image;
    } catch (error) {
      if (isAbort(error) && signal.aborted) throw error;
      throw this.#failed(wanted, key, error);
    }
  }

  /** Id of the image that somebody else has brought under this name; empty when there is none, or it is ours. */
  async #foundBefore({ reference, target }: Wanted, signal: AbortSignal): Promise<string> {
    const image = await this.#inspect(target, reference, signal);
    if (image === undefined || (await this.#records.isOurs(reference, image.id))) return "";
    return image.id;
  }

  async #pull(wanted: Wanted, signal: AbortSignal): Promise<Pulled> {
    const { credentials, pod, reference } = wanted;
    const found = await this.#foundBefore(wanted, signal);
    await this.#records.begin(reference);
    const { name, namespace = "" } = pod.metadata;
    const leave = this.#underWay.join(reference, `${namespace}/${name}`, this.#options.clock.now());
    let pulled: Pulled;
    let used: Credential | undefined;
    try {
      const mine = await credentials();
      pulled = await this.#queue.pull(reference, mine, signal);
      used = pulled.usedIndex === undefined ? undefined : mine[pulled.usedIndex];
    } catch (error) {
      await this.#records.failed(reference);
      throw error;
    } finally {
      leave();
    }
    if (found === pulled.image.id) await this.#records.found(found);
    await this.#records.pulled(reference, pulled.image.id, used);
    return pulled;
  }

  #failed({ name, target }: Wanted, key: string, error: unknown): ImageError {
    const message = errorMessage(error);
    const now = this.#options.clock.now();
    const before = this.#failures.get(key);
    // After a long time without one, a failure is a first one again.
    const fresh = before === undefined || now - before.at > 2 * maxDelayMs;
    const delayMs = fresh ? firstDelayMs : Math.min(before.delayMs * 2, maxDelayMs);
    const dueAt = now + delayMs;
    this.#failures.set(key, { delayMs, at: now, dueAt, message });
    this.#event(target, "Warning", "Failed", `Failed to pull image "${name}": ${message}`);
    // The next look shows ImagePullBackOff; it need not wait for the end of the delay.
    return new ImageError("ErrImagePull", message, { cause: error, retryAt: dueAt });
  }

  #event(target: EventTarget, type: EventType, reason: string, message: string): void {
    this.#options.events.event(target, type, reason, message);
  }
}

/** A duration as Go prints it, cut to milliseconds: `523ms`, `1.2s`, `1m2.5s`. */
export function formatDuration(ms: number): string {
  const whole = Math.max(Math.trunc(ms), 0);
  if (whole === 0) return "0s";
  if (whole < 1000) return `${whole}ms`;
  const minutes = Math.floor(whole / 60_000);
  const seconds = `${(whole % 60_000) / 1000}s`;
  if (minutes === 0) return seconds;
  const hours = Math.floor(minutes / 60);
  return hours === 0 ? `${minutes}m${seconds}` : `${hours}h${minutes % 60}m${seconds}`;
}

/** Which images that are there must be asked for with credentials (ImagePullCredentialsVerificationPolicy). */
function verificationPolicy(
  config: ImagePullerOptions["config"],
): (reference: string, ours: boolean) => boolean {
  const allowed = config.preloadedImagesVerificationAllowlist ?? [];
  switch (config.imagePullCredentialsVerificationPolicy ?? "NeverVerifyPreloadedImages") {
    case "NeverVerify":
      return () => false;
    case "NeverVerifyPreloadedImages":
      return (_, ours) => ours;
    case "NeverVerifyAllowlistedImages":
      return (reference) => !allowed.some((pattern) => matchesPattern(reference, pattern));
    case "AlwaysVerify":
      return () => true;
  }
}

function matchesPattern(reference: string, pattern: string): boolean {
  const name = repositoryOf(reference);
  return pattern.endsWith("/*")
    ? name.startsWith(pattern.slice(0, -1))
    : name === repositoryOf(pattern);
}
