import { dirname } from "node:path";

import type { Clock } from "../../lib/clock.ts";
import { parseCount } from "./cgroup-text.ts";
import type { KernelFiles } from "./kernel-files.ts";

const engineName = "dockerd";
/** How long nobody looks again for an engine whose process cannot be seen from here. */
const missingMs = 60_000;

/** Knows the process of the engine behind a socket. */
export class EngineProcess {
  readonly #files: KernelFiles;
  readonly #clock: Pick<Clock, "monotonic">;
  readonly #pidFile: string;
  #pid: number | undefined;
  #missedAt = Number.NEGATIVE_INFINITY;

  constructor(options: {
    readonly files: KernelFiles;
    readonly clock: Pick<Clock, "monotonic">;
    readonly socketPath: string;
  }) {
    this.#files = options.files;
    this.#clock = options.clock;
    this.#pidFile = `${dirname(options.socketPath)}/docker.pid`;
  }

  /** As the file beside the socket says, else the only process of its name. Undefined when nobody can tell. */
  pid(): number | undefined {
    if (this.#pid !== undefined && this.#isEngine(this.#pid)) return this.#pid;
    const now = this.#clock.monotonic();
    if (now - this.#missedAt < missingMs) return undefined;
    const noted = parseCount(this.#files.text(this.#pidFile));
    this.#pid = noted !== undefined && this.#isEngine(noted) ? noted : this.#onlyEngine();
    if (this.#pid === undefined) this.#missedAt = now;
    return this.#pid;
  }

  #isEngine(pid: number): boolean {
    return this.#files.text(`/proc/${pid}/comm`)?.trim() === engineName;
  }

  #onlyEngine(): number | undefined {
    const found = this.#files
      .names("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => this.#isEngine(pid));
    return found.length === 1 ? found[0] : undefined;
  }
}
