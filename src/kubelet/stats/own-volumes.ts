import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { PodVolume, VolumeFigures } from "../types.ts";

export interface OwnVolumesOptions {
  readonly volumes: (podUID: string) => readonly PodVolume[];
  readonly clock: Clock;
  readonly logger: Logger;
}

/** How full a volume with room of its own was when it was last asked. */
export interface OwnVolume {
  readonly name: string;
  readonly claim: string | undefined;
  /** Milliseconds since the epoch. */
  readonly timeMs: number;
  readonly figures: VolumeFigures;
}

interface Asked {
  latest: { readonly timeMs: number; readonly figures: VolumeFigures } | undefined;
  asking: Promise<void> | undefined;
  failures: number;
  /** Monotonic milliseconds. */
  notBefore: number;
}

const freshMs = 60_000;
const askMs = 15_000;
const maxPauseMs = 3_600_000;

/**
 * How full volumes are that are no directories of the node: disks, servers, whatever a driver has. Each is asked by
 * itself, so that one that hangs keeps no other from being shown, and it is asked less and less often.
 */
export class OwnVolumes {
  readonly #options: OwnVolumesOptions;
  readonly #asked = new Map<string, Asked>();

  constructor(options: OwnVolumesOptions) {
    this.#options = options;
  }

  /** What is known of a pod's volumes. */
  of(podUID: string): readonly OwnVolume[] {
    return this.#options.volumes(podUID).flatMap(({ claim, name, path }) => {
      const latest = this.#asked.get(path)?.latest;
      return latest === undefined ? [] : [{ name, claim, ...latest }];
    });
  }

  /** Asks the volumes of these pods that were not asked lately, and forgets those of others. */
  async refresh(podUIDs: Iterable<string>): Promise<void> {
    const seen = new Set<string>();
    const asking: Promise<void>[] = [];
    for (const uid of podUIDs) {
      for (const volume of this.#options.volumes(uid)) {
        seen.add(volume.path);
        const work = this.#ask(volume);
        if (work !== undefined) asking.push(work);
      }
    }
    for (const path of this.#asked.keys()) if (!seen.has(path)) this.#asked.delete(path);
    await Promise.all(asking);
  }

  #ask(volume: PodVolume): Promise<void> | undefined {
    const { clock } = this.#options;
    const state = this.#asked.get(volume.path) ?? {
      latest: undefined,
      asking: undefined,
      failures: 0,
      notBefore: 0,
    };
    this.#asked.set(volume.path, state);
    if (state.asking !== undefined || clock.monotonic() < state.notBefore) return state.asking;
    state.asking = this.#askNow(volume, state).finally(() => (state.asking = undefined));
    return state.asking;
  }

  async #askNow(volume: PodVolume, state: Asked): Promise<void> {
    const { clock, logger } = this.#options;
    try {
      const figures = await volume.figures(AbortSignal.timeout(askMs));
      state.latest = figures === undefined ? undefined : { timeMs: clock.now(), figures };
      state.failures = 0;
      state.notBefore = clock.monotonic() + freshMs;
    } catch (error) {
      // What is stuck stays stuck: each further try may leave one more process with it.
      state.notBefore =
        clock.monotonic() + Math.min(freshMs * 2 ** Math.min(state.failures, 10), maxPauseMs);
      state.failures += 1;
      logger.log(state.failures === 1 ? "warn" : "debug", "volume cannot be asked how full it is", {
        path: volume.path,
        error: errorMessage(error),
      });
    }
  }
}
