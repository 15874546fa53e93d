import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { isRuntimeFailure } from "../errors.ts";
import type { PodRecord, RuntimeEvent } from "../types.ts";
import type { DockerClient } from "./client.ts";
import { label, type Owner, ownerFilters, ownership } from "./labels.ts";
import { KnownPods } from "./known-pods.ts";
import { ensureLogLinks, type LogDirs } from "./log-links.ts";
import {
  asListed,
  type InspectedContainer,
  type ListedContainer,
  type Observed,
  parseInspected,
  parseListed,
  podRecords,
  stillDescribes,
} from "./records.ts";

/** One event of one container of a pod. */
export type ContainerEvent = Exclude<RuntimeEvent, { kind: "resync" }>;

export interface ObserverOptions {
  readonly client: DockerClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly owner: Owner;
  readonly logDirs: LogDirs;
}

function idsByPod(listed: readonly ListedContainer[]): Map<string, Set<string>> {
  const pods = new Map<string, Set<string>>();
  for (const { id, labels } of listed) {
    const uid = labels[label.podUID] ?? "";
    pods.set(uid, (pods.get(uid) ?? new Set()).add(id));
  }
  return pods;
}

/**
 * Reads what the engine holds. A list or an inspect is repeated only when an event, our own call or a list says that it
 * may be out of date.
 */
export class Observer {
  readonly #options: ObserverOptions;
  readonly #pods: KnownPods;
  readonly #inspected = new Map<string, InspectedContainer>();
  /** Inspects under way: one during which its container changed is not kept. */
  readonly #looks = new Map<string, Set<{ outdated: boolean }>>();

  constructor(options: ObserverOptions) {
    this.#options = options;
    this.#pods = new KnownPods(options.clock);
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
    const ours = await this.#listKnown([], signal);
    const known = new Set(ours.map(({ id }) => id));
    for (const id of this.#inspected.keys()) if (!known.has(id)) this.#inspected.delete(id);
    return podRecords(await this.#observe(ours, signal));
  }

  /** One pod; an empty record when there is nothing of it. */
  async podRecord(uid: string, signal: AbortSignal): Promise<PodRecord> {
    const records = podRecords(this.#known(uid) ?? (await this.#listPod(uid, signal)));
    return records.get(uid) ?? { uid, name: "", namespace: "", sandboxes: [], containers: [] };
  }

  /** What is known of the pod without asking; undefined when something has to be asked. */
  #known(uid: string): readonly Observed[] | undefined {
    const ids = this.#pods.ids(uid);
    if (ids === undefined) return undefined;
    const observed: Observed[] = [];
    for (const id of ids) {
      const inspected = this.#inspected.get(id);
      // One that was made and not started may have failed to start by now.
      if (inspected === undefined || inspected.status === "created") return undefined;
      observed.push({ listed: asListed(inspected), inspected });
    }
    return observed;
  }

  async #listPod(uid: string, signal: AbortSignal): Promise<readonly Observed[]> {
    return this.#observe(await this.#listKnown([`${label.podUID}=${uid}`], signal, uid), signal);
  }

  /** A list of which {@link KnownPods} take note. */
  async #listKnown(
    filters: readonly string[],
    signal: AbortSignal,
    only?: string,
  ): Promise<readonly ListedContainer[]> {
    return this.#pods.list(async () => {
      const { ours } = await this.list(filters, signal);
      return { pods: idsByPod(ours), of: ours };
    }, only);
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

  /** Forgets what was inspected of `id`. */
  invalidate(id: string): void {
    for (const look of this.#looks.get(id) ?? []) look.outdated = true;
    this.#inspected.delete(id);
  }

  /** The engine's events are heard from now on, or no longer. */
  listening(on: boolean): void {
    this.#pods.listening(on);
    for (const id of [...this.#looks.keys(), ...this.#inspected.keys()]) this.invalidate(id);
  }

  /** We have made a container of the pod. */
  made(uid: string, id: string): void {
    this.#pods.made(uid, id);
  }

  /** Only a list can tell what the pod has. */
  doubt(uid: string): void {
    this.#pods.doubt(uid);
  }

  /**
   * The engine tells that something has happened to `id`. The start of a container that the pod is known to have changes
   * nothing about which it has, and one that was seen running is old news: another start would have come behind its end.
   */
  heard({ containerID, kind, podUID }: ContainerEvent): void {
    if (kind === "started") {
      if (this.#inspected.get(containerID)?.status === "running") return;
      this.#inspected.delete(containerID);
      if (this.#pods.has(podUID, containerID)) return;
    } else {
      this.invalidate(containerID);
    }
    this.#pods.doubt(podUID);
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
