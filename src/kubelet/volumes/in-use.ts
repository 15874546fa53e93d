/**
 * `status.volumesInUse` of the node: which attachable volumes must not be detached under it. Named as the
 * attach-detach controller names them, `kubernetes.io/csi/DRIVER^HANDLE`. A volume is in use as soon as a pod is to have
 * it, and until nothing of it is mounted on this node any more.
 */
export class VolumesInUse {
  readonly #users = new Map<string, Set<string>>();
  readonly #listeners = new Set<() => void>();
  /** Of a former run of the agent: undefined until what it left on disk was looked at. */
  #left: ReadonlySet<string> | undefined;
  readonly #onDisk: ((volume: string) => boolean)[] = [];

  /** A pod is to have the volume. */
  add(volume: string, user: string): void {
    const users = this.#users.get(volume) ?? new Set<string>();
    const fresh = users.size === 0;
    users.add(user);
    this.#users.set(volume, users);
    if (fresh) this.#tell();
  }

  /** The pod has it no more; it stays in use until {@link drop}. */
  release(volume: string, user: string): void {
    this.#users.get(volume)?.delete(user);
  }

  /** Whether some pod has it, or is to have it. */
  hasUsers(volume: string): boolean {
    return (this.#users.get(volume)?.size ?? 0) > 0;
  }

  /** Nothing of it is mounted any more. No effect while it has users. */
  drop(volume: string): void {
    if (this.hasUsers(volume)) return;
    this.#users.delete(volume);
    if (this.#left?.has(volume) === true) {
      this.#left = new Set([...this.#left].filter((each) => each !== volume));
    }
    this.#tell();
  }

  /** What a former run left mounted. Until this was told, the node's status loses nothing. */
  restore(mounted: Iterable<string>): void {
    this.#left = new Set(mounted);
    this.#tell();
  }

  /** For volumes that lie on disk under a name of their own: whether one that was reported before is still there. */
  keepWhile(onDisk: (volume: string) => boolean): void {
    this.#onDisk.push(onDisk);
  }

  /**
   * The list as it should be.
   *
   * @param reported As the node's status has it: what was mounted before a restart stays only if it was in it, because
   * what is on disk does not tell which drivers attach.
   */
  list(reported: readonly string[] | undefined): string[] | undefined {
    const left = this.#left;
    const before = (reported ?? []).filter(
      (volume) =>
        left === undefined || left.has(volume) || this.#onDisk.some((onDisk) => onDisk(volume)),
    );
    const now = [...new Set([...before, ...this.#users.keys()])].toSorted();
    return now.length === 0 && reported === undefined ? undefined : now;
  }

  /** Calls `listener` when the list may have changed. Returns the function that ends it. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}
