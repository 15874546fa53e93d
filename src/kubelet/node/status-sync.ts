import type { ApiClient } from "../../api/client.ts";
import { isConflict, isForbidden, isNotFound } from "../../api/errors.ts";
import { parseStored, type Stored } from "../../api/object.ts";
import { objectPath } from "../../api/resource.ts";
import { NODES } from "../../api/resources.ts";
import type { Node, NodeStatus } from "../../api/types.gen.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import { statusChanged, statusPatch } from "./node-status.ts";
import { registrationAdvice } from "./registration.ts";

/** Tries per tick: the first against the object at hand, later ones against a fresh read. */
const attempts = 5;

export interface StatusSyncOptions {
  readonly nodeName: string;
  readonly reportFrequencyMs: number;
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  /** The Node as last seen. */
  readonly current: () => Stored<Node> | undefined;
  /** The wanted status on top of `previous`. */
  readonly compute: (previous: NodeStatus) => Promise<NodeStatus>;
  /** Whether `next` is better not told yet. */
  readonly isTooEarly: (previous: NodeStatus, next: NodeStatus) => boolean;
  /** The server took a new status. */
  readonly onWritten: (before: NodeStatus, after: Stored<Node>) => void;
}

/** Writes the node's status: when it changed, and else every `nodeStatusReportFrequency`. */
export class StatusSync {
  readonly #options: StatusSyncOptions;
  #nextReportAt = 0;
  #missingReported = false;
  /** The last failure told, so that the same trouble is one line and not one each tick. */
  #reported = "";

  constructor(options: StatusSyncOptions) {
    this.#options = options;
  }

  /** One tick. Never rejects for the server's sake. Returns the status that is true now. */
  async sync(signal: AbortSignal): Promise<NodeStatus | undefined> {
    let node = this.#options.current();
    for (let attempt = 0; attempt < attempts; attempt += 1) {
      try {
        node ??= await this.#get(signal);
        const written = await this.#write(node, signal);
        this.#missingReported = false;
        this.#reported = "";
        return written;
      } catch (error) {
        if (signal.aborted) return undefined;
        if (isNotFound(error)) {
          this.#reportMissing();
          return undefined;
        }
        this.#reportFailure(attempt, error);
        // No right now is no right in a millisecond.
        if (isForbidden(error)) return undefined;
        node = undefined;
      }
    }
    return undefined;
  }

  #reportFailure(attempt: number, error: unknown): void {
    const { logger, nodeName } = this.#options;
    const message = registrationAdvice(nodeName, error);
    const level = message === this.#reported || isConflict(error) ? "debug" : "warn";
    this.#reported = message;
    logger.log(level, "node status was not written", { attempt, error: message });
  }

  #reportMissing(): void {
    if (this.#missingReported) return;
    this.#missingReported = true;
    this.#options.logger.log(
      "error",
      "the Node object was deleted; restart the agent to register again",
      {
        node: this.#options.nodeName,
      },
    );
  }

  async #get(signal: AbortSignal): Promise<Stored<Node>> {
    const path = objectPath(NODES, { name: this.#options.nodeName });
    return parseStored<Node>(await this.#options.client.request({ method: "GET", path, signal }));
  }

  async #write(node: Stored<Node>, signal: AbortSignal): Promise<NodeStatus> {
    const { clock, client, nodeName, onWritten } = this.#options;
    const before = node.status ?? {};
    const next = await this.#options.compute(before);
    if (this.#options.isTooEarly(before, next)) return next;
    const changed = statusChanged(before, next);
    if (!changed && clock.monotonic() < this.#nextReportAt) return next;
    const answer = await client.request({
      method: "PATCH",
      path: objectPath(NODES, { name: nodeName }, "status"),
      body: statusPatch(before, next),
      contentType: "application/strategic-merge-patch+json",
      signal,
    });
    this.#scheduleReport(changed);
    onWritten(before, parseStored<Node>(answer));
    return next;
  }

  #scheduleReport(changed: boolean): void {
    const { clock, reportFrequencyMs, random } = this.#options;
    // Nodes that changed together (a restarted control plane) must not report together for ever.
    const offset = changed ? (random() - 0.5) * reportFrequencyMs : 0;
    this.#nextReportAt = clock.monotonic() + reportFrequencyMs + offset;
  }
}
