import type { ContainerRecord, PodRecord } from "../../runtime/types.ts";

interface Entry {
  readonly record: PodRecord;
  /** Number of the look that showed it. */
  readonly look: number;
}

/** A container ended between two looks. */
export type OnEnded = (container: ContainerRecord) => void;

/**
 * What the last looks of the pod half at the runtime have shown: readers of figures need no look of their own, which
 * would cost the engine more than all figures together.
 */
export class PodInventory {
  readonly #entries = new Map<string, Entry>();
  readonly #onEnded: OnEnded;
  #looks = 0;

  constructor(onEnded: OnEnded = () => undefined) {
    this.#onEnded = onEnded;
  }

  /** Every pod of which the runtime holds something. */
  records(): readonly PodRecord[] {
    return [...this.#entries.values()].map(({ record }) => record);
  }

  /** Call before a look at the runtime; its answer is then taken in under the number. */
  begin(): number {
    this.#looks += 1;
    return this.#looks;
  }

  takeOne(record: PodRecord, look: number): void {
    const known = this.#entries.get(record.uid);
    // Looks overtake each other: the one that began later saw more.
    if (known !== undefined && known.look > look) return;
    if (known !== undefined) this.#tellEnds(known.record, record);
    if (record.sandboxes.length === 0 && record.containers.length === 0) {
      this.#entries.delete(record.uid);
    } else {
      this.#entries.set(record.uid, { record, look });
    }
  }

  takeAll(records: ReadonlyMap<string, PodRecord>, look: number): void {
    for (const record of records.values()) this.takeOne(record, look);
    for (const [uid, entry] of this.#entries) {
      if (!records.has(uid) && entry.look < look) this.#entries.delete(uid);
    }
  }

  /** A sandbox has been stopped or removed. */
  dropSandbox(sandboxID: string): void {
    this.#without(({ sandboxes, ...rest }) => ({
      ...rest,
      sandboxes: sandboxes.filter(({ id }) => id !== sandboxID),
    }));
  }

  /** A container has been removed. */
  dropContainer(containerID: string): void {
    this.#without(({ containers, ...rest }) => ({
      ...rest,
      containers: containers.filter(({ id }) => id !== containerID),
    }));
  }

  #without(change: (record: PodRecord) => PodRecord): void {
    for (const { record } of this.#entries.values()) {
      const changed = change(record);
      const before = record.sandboxes.length + record.containers.length;
      const after = changed.sandboxes.length + changed.containers.length;
      // Under a number of its own: a look that is under way may have seen what is gone now.
      if (after < before) this.takeOne(changed, this.begin());
    }
  }

  #tellEnds(before: PodRecord, after: PodRecord): void {
    for (const container of after.containers) {
      if (container.state.kind !== "exited" || container.state.startedAt === 0) continue;
      const was = before.containers.find(({ id }) => id === container.id)?.state;
      const same = was?.kind === "exited" && was.finishedAt === container.state.finishedAt;
      if (!same) this.#onEnded(container);
    }
  }
}
