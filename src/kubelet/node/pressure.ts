import { thresholdValue } from "./allocatable.ts";

/** One eviction signal as observed; `available` below its threshold is pressure. */
export interface SignalReading {
  readonly available: number;
  readonly capacity: number;
}

/** Eviction signals (`memory.available`, ...) that could be read. */
export type SignalReadings = Readonly<Record<string, SignalReading>>;

export type PressureKind = "memory" | "disk" | "pid";

const signals: Readonly<Record<string, PressureKind>> = {
  "memory.available": "memory",
  "nodefs.available": "disk",
  "nodefs.inodesFree": "disk",
  "imagefs.available": "disk",
  "imagefs.inodesFree": "disk",
  "pid.available": "pid",
};

/** Kinds of pressure the node is under at this moment, by the hard thresholds. A signal without a reading is none. */
export function pressureNow(
  readings: SignalReadings,
  evictionHard: Readonly<Record<string, string>>,
): Set<PressureKind> {
  const under = new Set<PressureKind>();
  for (const [signal, threshold] of Object.entries(evictionHard)) {
    const kind = signals[signal];
    const reading = readings[signal];
    if (kind === undefined || reading === undefined) continue;
    const least = thresholdValue(threshold, reading.capacity, `evictionHard["${signal}"]`);
    if (reading.available < least) under.add(kind);
  }
  return under;
}

const defaultTransitionPeriodMs = 5 * 60_000;

/** Remembers when pressure was last seen, so that a condition does not flap around its threshold. */
export class PressureMemory {
  readonly #lastSeen = new Map<PressureKind, number>();
  readonly #transitionPeriodMs: number;

  /** @param transitionPeriodMs How long a condition stays after the pressure was last seen. */
  constructor(transitionPeriodMs = defaultTransitionPeriodMs) {
    this.#transitionPeriodMs = transitionPeriodMs;
  }

  /** @param monotonicMs Time of the observation. */
  observe(under: ReadonlySet<PressureKind>, monotonicMs: number): Set<PressureKind> {
    for (const kind of under) this.#lastSeen.set(kind, monotonicMs);
    const held = new Set<PressureKind>();
    for (const [kind, at] of this.#lastSeen) {
      if (monotonicMs - at < this.#transitionPeriodMs) held.add(kind);
    }
    return held;
  }
}
