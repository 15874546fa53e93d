import type { ApiClient } from "../../api/client.ts";
import { isAlreadyExists, isConflict, isForbidden, isNotFound } from "../../api/errors.ts";
import { parseStored, type Stored } from "../../api/object.ts";
import { collectionPath, objectPath } from "../../api/resource.ts";
import { LEASES } from "../../api/resources.ts";
import type { Lease } from "../../api/types.gen.ts";
import { jitteredBackoffMs } from "../../lib/backoff.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";

const namespace = "kube-node-lease";
const maxUpdateRetries = 5;
/** Short at most: after an outage the heartbeat is the first to get through, and all others wait for that. */
const backoff = { baseMs: 200, maxMs: 3000 };

export interface NodeLeaseOptions {
  readonly nodeName: string;
  readonly durationSeconds: number;
  /** A client of its own: a busy or stuck connection elsewhere must not cost the heartbeat. */
  readonly client: ApiClient;
  /** Uid of the Node object, for the owner reference; undefined while unknown. */
  readonly nodeUID: () => string | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
}

/** The node's heartbeat: Lease `kube-node-lease/NAME`, renewed at a quarter of its duration. */
export class NodeLease {
  readonly #options: NodeLeaseOptions;
  #held: Stored<Lease> | undefined;
  #renewedAt: number | undefined;
  #failures = 0;
  #renewals = 0;

  constructor(options: NodeLeaseOptions) {
    this.#options = options;
  }

  /** Seconds since the last renewal that the server confirmed; undefined before the first. */
  ageSeconds(): number | undefined {
    return this.#renewedAt === undefined
      ? undefined
      : (this.#options.clock.monotonic() - this.#renewedAt) / 1000;
  }

  /** Renewals the server has confirmed since the start. */
  get renewals(): number {
    return this.#renewals;
  }

  /** Renews until `signal` aborts. Never rejects for the server's sake. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, durationSeconds, random } = this.#options;
    const intervalMs = (durationSeconds * 1000) / 4;
    while (!signal.aborted) {
      const renewed = await this.#renewWithRetries(signal);
      const waitMs = renewed
        ? intervalMs * (1 + 0.04 * random())
        : jitteredBackoffMs(this.#failures, backoff, random);
      await clock.sleep(waitMs, signal).catch(() => undefined);
    }
  }

  async #renewWithRetries(signal: AbortSignal): Promise<boolean> {
    for (let attempt = 0; attempt < maxUpdateRetries && !signal.aborted; attempt += 1) {
      try {
        await this.#renew(signal);
        this.#confirm();
        return true;
      } catch (error) {
        if (signal.aborted) return false;
        this.#failures += 1;
        this.#report(error);
        // What we hold may be stale or gone; the next try looks first.
        this.#held = undefined;
        if (isForbidden(error)) return false;
      }
    }
    return false;
  }

  #confirm(): void {
    const { clock, durationSeconds, logger } = this.#options;
    const age = this.ageSeconds();
    if (age !== undefined && age > durationSeconds / 2) {
      logger.log("warn", "node lease was renewed late", { ageSeconds: Math.round(age) });
    }
    this.#failures = 0;
    this.#renewals += 1;
    this.#renewedAt = clock.monotonic();
  }

  #report(error: unknown): void {
    if (isConflict(error) || isNotFound(error) || isAlreadyExists(error)) return;
    const { logger } = this.#options;
    // The first failure of a row tells the story, the following ones are only counted.
    const level = this.#failures === 1 ? "warn" : "debug";
    logger.log(level, "node lease was not renewed", {
      failures: this.#failures,
      error: errorMessage(error),
    });
  }

  async #renew(signal: AbortSignal): Promise<void> {
    const held = this.#held ?? (await this.#find(signal));
    this.#held = held === undefined ? await this.#create(signal) : await this.#update(held, signal);
  }

  async #find(signal: AbortSignal): Promise<Stored<Lease> | undefined> {
    try {
      return parseStored<Lease>(await this.#request({ method: "GET", path: this.#path }, signal));
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  async #create(signal: AbortSignal): Promise<Stored<Lease>> {
    const body = this.#lease({ metadata: { name: this.#options.nodeName, namespace } });
    const path = collectionPath(LEASES, namespace);
    return parseStored<Lease>(await this.#request({ method: "POST", path, body }, signal));
  }

  async #update(held: Stored<Lease>, signal: AbortSignal): Promise<Stored<Lease>> {
    const body = this.#lease(held);
    return parseStored<Lease>(
      await this.#request({ method: "PUT", path: this.#path, body }, signal),
    );
  }

  #lease(held: Lease): Lease {
    const { nodeName, durationSeconds, clock } = this.#options;
    const uid = this.#options.nodeUID();
    const owners = held.metadata?.ownerReferences ?? [];
    const ownerReferences =
      owners.length === 0 && uid !== undefined
        ? [{ apiVersion: "v1", kind: "Node", name: nodeName, uid }]
        : owners;
    return {
      apiVersion: "coordination.k8s.io/v1",
      kind: "Lease",
      metadata: { ...held.metadata, ownerReferences },
      spec: {
        ...held.spec,
        holderIdentity: nodeName,
        leaseDurationSeconds: durationSeconds,
        renewTime: `${new Date(clock.now()).toISOString().slice(0, 23)}000Z`,
      },
    };
  }

  get #path(): string {
    return objectPath(LEASES, { namespace, name: this.#options.nodeName });
  }

  #request(
    request: {
      readonly method: "GET" | "POST" | "PUT";
      readonly path: string;
      readonly body?: unknown;
    },
    signal: AbortSignal,
  ): Promise<unknown> {
    // A renewal that takes longer than the interval is worth less than the next one.
    const deadlineMs = Math.max((this.#options.durationSeconds * 1000) / 4, 1000);
    return this.#options.client.request({ ...request, deadlineMs, signal });
  }
}
