import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Standing } from "./operations.ts";
import { VolumeError } from "./payload.ts";

/** What is told about a pod's volumes as an event. */
export interface VolumeProblem {
  readonly reason: "FailedMount" | "FailedMapVolume";
  readonly message: string;
}

/** How far the volumes of a pod are. */
export interface SetUpResult {
  /** Each of them has been set up: containers may start, if only with the content of before. */
  readonly ready: boolean;
  /** Their content is what it should be. */
  readonly current: boolean;
  /** What nobody was told before. */
  readonly problems: readonly VolumeProblem[];
  /** When to look again, milliseconds from now; undefined when all is current. */
  readonly retryInMs: number | undefined;
  /** The pod cannot have its volumes on this node: it is not to wait for them. */
  readonly rejection?: { readonly reason: string; readonly message: string };
}

/** A volume can never be had here: the cause of a {@link SetUpError}. */
export class PodRejection extends VolumeError {
  /** As the pod's status shows it. */
  readonly reason: string;

  constructor(reason: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}

/** A volume's source cannot be used (yet): `failed to process volumes`. */
export class ResolveError extends VolumeError {
  constructor(cause: unknown) {
    super(errorMessage(cause), { cause });
  }
}

/** One volume could not be set up. */
export class SetUpError extends VolumeError {
  readonly reason: VolumeProblem["reason"];

  /** @param volume Of the PersistentVolume, where there is one. */
  constructor(reason: VolumeProblem["reason"], operation: string, volume: string, cause: unknown) {
    // Some of upstream's words for an operation say themselves that it failed.
    const failed = operation.includes(" failed ") ? operation : `${operation} failed`;
    super(`${failed} for volume "${volume}" : ${errorMessage(cause)}`, { cause });
    this.reason = reason;
  }
}

/** How long a pod waits for its volumes before that is told in so many words, as upstream waits. */
const toldAfterMs = 123_000;

const timedOut = "timed out waiting for the condition";

/** What is to be told about the volumes of one pod, and when. */
export class SetUpReport {
  /** Since when the pod waits, or was last told that it does; monotonic milliseconds. */
  #waitingSince: number | undefined;

  /**
   * @param standings Of all volumes that the pod uses.
   * @param prepared Names of those that were ready before or are now.
   */
  of(
    standings: ReadonlyMap<string, Standing<unknown>>,
    prepared: ReadonlySet<string>,
    clock: Pick<Clock, "monotonic">,
  ): SetUpResult {
    const now = clock.monotonic();
    const problems: VolumeProblem[] = [];
    const unresolved = new Map<string, string>();
    const times: number[] = [];
    for (const [name, standing] of standings) {
      if (standing.kind !== "failed") continue;
      times.push(standing.retryAt);
      const { error, news } = standing;
      if (error instanceof ResolveError) {
        if (news) unresolved.set(name, error.message);
        continue;
      }
      if (!news) continue;
      const reason = error instanceof SetUpError ? error.reason : "FailedMount";
      problems.push({ reason, message: errorMessage(error) });
    }
    const unmounted = [...standings.keys()].filter((name) => !prepared.has(name)).toSorted();
    const ready = unmounted.length === 0;
    if (unresolved.size > 0) {
      const why = [...new Set(unresolved.values())].join("; ");
      problems.push(unableToMount(unmounted, [...unresolved.keys()].toSorted(), why));
    }
    if (ready) this.#waitingSince = undefined;
    else {
      this.#waitingSince ??= now;
      if (now - this.#waitingSince >= toldAfterMs) {
        this.#waitingSince = now;
        problems.push(unableToMount(unmounted, [], "context deadline exceeded"));
      }
      times.push(this.#waitingSince + toldAfterMs);
    }
    const current = [...standings.values()].every(({ kind }) => kind === "done");
    const retryInMs = times.length === 0 ? undefined : Math.max(Math.min(...times) - now, 0);
    const rejected = [...standings.values()].map(rejectionOf).find((each) => each !== undefined);
    if (rejected === undefined) return { ready, current, problems, retryInMs };
    const { message, reason } = rejected;
    const lists = volumeLists(unmounted, unmounted, []);
    const rejection = { reason, message: `${message} ${lists}: ${timedOut}` };
    return { ready, current, problems, retryInMs, rejection };
  }
}

function unableToMount(
  unmounted: readonly string[],
  unresolved: readonly string[],
  why: string,
): VolumeProblem {
  const lists = volumeLists(unmounted, [], unresolved);
  return { reason: "FailedMount", message: `Unable to attach or mount volumes: ${lists}: ${why}` };
}

function volumeLists(
  unmounted: readonly string[],
  unattached: readonly string[],
  unresolved: readonly string[],
): string {
  return `unmounted volumes=[${unmounted.join(" ")}], unattached volumes=[${unattached.join(" ")}], failed to process volumes=[${unresolved.join(" ")}]`;
}

function rejectionOf(standing: Standing<unknown>): PodRejection | undefined {
  if (standing.kind !== "failed" || !(standing.error instanceof Error)) return undefined;
  const { cause } = standing.error;
  return cause instanceof PodRejection ? cause : undefined;
}
