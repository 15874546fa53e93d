import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { isRuntimeFailure } from "../errors.ts";
import type { PodRecord } from "../types.ts";
import type { DockerClient } from "./client.ts";
import { label, type Owner, ownerFilters, ownership } from "./labels.ts";
import { ensureLogLinks, type LogDirs } from "./log-links.ts";
import {
  type InspectedContainer,
  type ListedContainer,
  type Observed,
  parseInspected,
  parseListed,
  podRecords,
  stillDescribes,
} from "./records.ts";

export interface ObserverOptions {
  readonly client: DockerClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly owner: Owner;
  readonly logDirs: LogDirs;
}

/**
 * Reads what the engine holds. An inspect is repeated only when the list, an event or our own call says that it may be
 * out of date; the list is always fresh.
 */
export class Observer {
  readonly #options: ObserverOptions;
  readonly #inspected = new Map<string, InspectedContainer>();
  /** Inspects under way: one during which its container changed is not kept. */
  readonly #looks = new Map<string, Set<{ outdated: boolean }>>();

  constructor(options: ObserverOptions) {
    this.#options = options;
  }

  /** Everything of ours, raw. `newer` counts what a newer Remora made. */
  async list(
    filters: readonly string[],
    signal: AbortSignal,
  ): Promise<{ readonly ours: readonly ListedContainer[]; readonly newer: number }> {
    const { client, owner } = this.#options;
    const response = await client.call(
      {
        op: "list containers",
        method: "GET",
        path: "/containers/json",
        query: {
          all: 1,
          filters: JSON.stringify({ label: [...ownerFilters(owner), ...filters] }),
        },
      },
      signal,
    );
    const listed = (Array.isArray(response) ? response : []).map((entry, index) =>
      parseListed(entry, `containers[${index}]`),
    );
    return {
      ours: listed.filter(({ labels }) => ownership(labels, owner) === "ours"),
      newer: listed.filter(({ labels }) => ownership(labels, owner) === "newer").length,
    };
  }

  /** All pods. */
  async snapshot(signal: AbortSignal): Promise<Map<string, PodRecord>> {
    const { ours } = await this.list([], signal);
    const known = new Set(ours.map(({ id }) => id));
    for (const id of this.#inspected.keys()) if (!known.has(id)) this.#inspected.delete(id);
    return podRecords(await this.#observe(ours, signal));
  }

  /** One pod; an empty record when there is nothing of it. */
  async podRecord(uid: string, signal: AbortSignal): Promise<PodRecord> {
    const { ours } = await this.list([`${label.podUID}=${uid}`], signal);
    const records = podRecords(await this.#observe(ours, signal));
    return records.get(uid) ?? { uid, name: "", namespace: "", sandboxes: [], containers: [] };
  }

  /** A fresh inspect. @throws {RuntimeError} `NotFound` when it is gone. */
  async inspect(id: string, signal: AbortSignal, timeoutMs?: number): Promise<InspectedContainer> {
    const { client } = this.#options;
    const look = { outdated: false };
    const looks = this.#looks.get(id) ?? new Set();
    this.#looks.set(id, looks.add(look));
    try {
      const response = await client.call(
        {
          op: "inspect container",
          method: "GET",
          path: `/containers/${encodeURIComponent(id)}/json`,
          ...(timeoutMs === undefined ? {} : { timeoutMs }),
        },
        signal,
      );
      const inspected = parseInspected(response);
      // Asked for by its name it is not known under which id it may have changed meanwhile.
      if (!look.outdated && inspected.id === id) this.#inspected.set(inspected.id, inspected);
      return inspected;
    } finally {
      looks.delete(look);
      if (looks.size === 0) this.#looks.delete(id);
    }
  }

  /** Forgets what was inspected of `id`, or of everything. */
  invalidate(id?: string): void {
    for (const [key, looks] of this.#looks) {
      if (id === undefined || id === key) for (const look of looks) look.outdated = true;
    }
    if (id === undefined) this.#inspected.clear();
    else this.#inspected.delete(id);
  }

  /**
   * The engine tells that `id` was started. Of a container that was seen running this is old news: another start would
   * have come behind the end of this one.
   */
  started(id: string): void {
    if (this.#inspected.get(id)?.status !== "running") this.#inspected.delete(id);
  }

  async #observe(listed: readonly ListedContainer[], signal: AbortSignal): Promise<Observed[]> {
    const observed = await Promise.all(
      listed.map(async (entry) => {
        const known = this.#inspected.get(entry.id);
        if (known !== undefined && stillDescribes(known, entry, this.#options.clock.now())) {
          return { listed: entry, inspected: known };
        }
        return this.#look(entry, signal);
      }),
    );
    return observed.filter((entry) => entry !== undefined);
  }

  async #look(listed: ListedContainer, signal: AbortSignal): Promise<Observed | undefined> {
    try {
      // An inspect waits for a start of the same container; a stuck one may delay only its own pod.
      const inspected = await this.inspect(listed.id, signal, 5000);
      await this.#ensureLinks(inspected);
      return { listed, inspected };
    } catch (error) {
      if (isRuntimeFailure(error, "NotFound")) return undefined;
      if (!isRuntimeFailure(error, "Timeout", "Internal")) throw error;
      this.#options.logger.log("warn", "container cannot be inspected", {
        containerID: listed.id,
        error: errorMessage(error),
      });
      return { listed, inspected: undefined };
    }
  }

  /** A crash between start and link is made good here. */
  async #ensureLinks(inspected: InspectedContainer): Promise<void> {
    try {
      await ensureLogLinks(inspected, this.#options.logDirs);
    } catch (error) {
      this.#options.logger.log("warn", "log link cannot be made", {
        containerID: inspected.id,
        error: errorMessage(error),
      });
    }
  }
}
