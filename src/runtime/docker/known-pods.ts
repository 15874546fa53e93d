import type { Clock } from "../../lib/clock.ts";

/** How long a list is believed that nothing has contradicted, milliseconds. */
const believedMs = 5_000;

interface Known {
  readonly ids: ReadonlySet<string>;
  /** Monotonic time of the list; undefined when something has happened since. */
  readonly at: number | undefined;
}

const nothing: ReadonlySet<string> = new Set();

/**
 * Which containers each pod has, as far as the last list, our own calls and the engine's events tell. A start asks for
 * that five times within a second; what would answer otherwise than the list is in doubt, and asked for.
 */
export class KnownPods {
  readonly #clock: Clock;
  readonly #pods = new Map<string, Known>();
  /** Of the lists under way: pods that changed meanwhile. */
  readonly #lists = new Set<Set<string>>();
  #listening = false;
  #complete = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Without the engine's events nothing is believed. */
  listening(on: boolean): void {
    this.#listening = on;
    this.#complete = false;
    this.#pods.clear();
    this.#lists.clear();
  }

  /** Ids of the pod's containers and sandboxes; undefined when only a list can tell. */
  ids(uid: string): ReadonlySet<string> | undefined {
    if (!this.#listening) return undefined;
    const known = this.#pods.get(uid);
    if (known === undefined) return this.#complete ? nothing : undefined;
    const believed = known.at !== undefined && this.#clock.monotonic() - known.at < believedMs;
    return believed ? known.ids : undefined;
  }

  /** Something that only a list can tell has happened to the pod. */
  doubt(uid: string): void {
    for (const changed of this.#lists) changed.add(uid);
    if (this.#listening) this.#pods.set(uid, { ids: nothing, at: undefined });
  }

  /** We have just made a container of the pod. */
  made(uid: string, id: string): void {
    const ids = this.ids(uid);
    if (ids === undefined) return this.doubt(uid);
    for (const changed of this.#lists) changed.add(uid);
    const at = this.#pods.get(uid)?.at ?? this.#clock.monotonic();
    this.#pods.set(uid, { ids: new Set([...ids, id]), at });
  }

  /** Whether the container is one that the pod is known to have. */
  has(uid: string, id: string): boolean {
    return this.ids(uid)?.has(id) === true;
  }

  /**
   * Does a list. What changes while `read` waits is not taken from it.
   *
   * @param only The pod that it asks for; absent, it shows all pods.
   */
  async list<T>(
    read: () => Promise<{
      readonly pods: ReadonlyMap<string, ReadonlySet<string>>;
      readonly of: T;
    }>,
    only?: string,
  ): Promise<T> {
    const changed = new Set<string>();
    this.#lists.add(changed);
    try {
      const { of, pods } = await read();
      // Gone when the events were interrupted meanwhile.
      if (this.#lists.has(changed) && this.#listening) this.#learn(pods, changed, only);
      return of;
    } finally {
      this.#lists.delete(changed);
    }
  }

  #learn(
    pods: ReadonlyMap<string, ReadonlySet<string>>,
    changed: ReadonlySet<string>,
    only: string | undefined,
  ): void {
    const at = this.#clock.monotonic();
    for (const uid of only === undefined ? this.#pods.keys() : [only]) {
      if (!changed.has(uid)) this.#pods.delete(uid);
    }
    for (const [uid, ids] of pods) if (!changed.has(uid)) this.#pods.set(uid, { ids, at });
    if (only === undefined) this.#complete = true;
  }
}
