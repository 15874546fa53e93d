import type { RunningRecorder } from "../../api/event-recorder.ts";
import type { EventTarget, EventType } from "../../api/event-types.ts";
import type { Clock } from "../../lib/clock.ts";
import type { EventSummary } from "./types.ts";

/** One that was seen, or several that say the same. */
export interface RecentEvent {
  /** Of the last one; milliseconds since the epoch. */
  readonly at: number;
  readonly type: EventType;
  readonly reason: string;
  readonly message: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** Such as `spec.containers{web}`; empty for the object as a whole. */
  readonly fieldPath: string;
  readonly count: number;
}

const maxEvents = 200;
const maxAgeMs = 3_600_000;
/** As the API server cuts them. */
const maxMessage = 1024;

/** The last events that this agent has told: what the API server has of them may be out of reach. */
export class RecentEvents {
  readonly #clock: Clock;
  /** The oldest first. */
  readonly #events = new Map<string, RecentEvent>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The same recorder, listened to. */
  listenTo(recorder: RunningRecorder): RunningRecorder {
    return {
      event: (target, type, reason, message) => {
        this.#note(target, type, reason, message);
        recorder.event(target, type, reason, message);
      },
      run: (signal) => recorder.run(signal),
    };
  }

  /** The newest last. */
  list(): readonly RecentEvent[] {
    this.#letGo();
    return [...this.#events.values()];
  }

  #note(target: EventTarget, type: EventType, reason: string, text: string): void {
    const { kind, namespace, name, uid, fieldPath = "" } = target;
    const message = text.length > maxMessage ? `${text.slice(0, maxMessage - 1)}…` : text;
    const key = [kind, namespace, name, uid, fieldPath, type, reason, message].join("\0");
    const count = (this.#events.get(key)?.count ?? 0) + 1;
    const at = this.#clock.now();
    this.#events.delete(key);
    const about = { kind, namespace, name, uid, fieldPath };
    this.#events.set(key, { at, type, reason, message, ...about, count });
    this.#letGo();
  }

  #letGo(): void {
    const oldest = this.#clock.now() - maxAgeMs;
    for (const [key, { at }] of this.#events) {
      if (this.#events.size <= maxEvents && at >= oldest) return;
      this.#events.delete(key);
    }
  }
}

/** As a snapshot tells it. */
export function eventSummary(event: RecentEvent): EventSummary {
  const { at, count, kind, message, name, namespace, reason, type } = event;
  const object = namespace === "" ? `${kind} ${name}` : `${kind} ${namespace}/${name}`;
  return { time: new Date(at).toISOString(), type, reason, object, message, count };
}
