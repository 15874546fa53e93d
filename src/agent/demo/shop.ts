import type { ApiClient } from "../../api/client.ts";
import type { Stored } from "../../api/object.ts";
import { getObject, listObjects } from "../../api/objects.ts";
import { DEPLOYMENTS, ENDPOINT_SLICES, PODS, SERVICES } from "../../api/resources.ts";
import type { Deployment, EndpointSlice, Pod } from "../../api/types.gen.ts";
import { type Clock, deadline } from "../../lib/clock.ts";
import { isAbort, SetupError } from "../../lib/errors.ts";
import { isReady, podWords } from "./pod-words.ts";
import type { Screen } from "./screen.ts";

/** Names in examples/shop.yaml. */
export const names = {
  frontend: "frontend",
  backend: "backend",
  service: "backend-service",
} as const;

const pollMs = 150;

export interface Endpoint {
  readonly pod: string;
  readonly address: string;
}

/** Addresses that a Service leads to now, in the order of the pods' names. */
export function readyEndpoints(slices: readonly EndpointSlice[]): readonly Endpoint[] {
  return slices
    .flatMap(({ endpoints, ports }) =>
      (endpoints ?? [])
        .filter(({ conditions }) => conditions?.ready !== false)
        .map(({ targetRef, addresses }) => ({
          pod: targetRef?.name ?? "?",
          address: `${addresses[0] ?? "?"}:${ports?.[0]?.port ?? "?"}`,
        })),
    )
    .toSorted((a, b) => (a.pod < b.pod ? -1 : 1));
}

/** True when every copy is of the newest template and available, as `kubectl rollout status` judges it. */
export function rolledOut({ metadata, spec, status }: Deployment): boolean {
  const wanted = spec?.replicas ?? 1;
  return (
    (status?.observedGeneration ?? 0) >= (metadata?.generation ?? 0) &&
    (status?.updatedReplicas ?? 0) === wanted &&
    (status?.replicas ?? 0) === wanted &&
    (status?.availableReplicas ?? 0) === wanted
  );
}

/** Reads the shop's objects, and waits for them in front of the user's eyes. */
export class Shop {
  readonly #client: ApiClient;
  readonly #namespace: string;
  readonly #clock: Clock;
  readonly #screen: Screen;

  constructor(options: {
    readonly client: ApiClient;
    readonly namespace: string;
    readonly clock: Clock;
    readonly screen: Screen;
  }) {
    this.#client = options.client;
    this.#namespace = options.namespace;
    this.#clock = options.clock;
    this.#screen = options.screen;
  }

  /** Pods of one tier, or of both, by name. */
  async pods(signal: AbortSignal, tier?: string): Promise<readonly Stored<Pod>[]> {
    const labelSelector = tier === undefined ? "app=shop" : `app=shop,tier=${tier}`;
    const options = { namespace: this.#namespace, labelSelector, signal };
    const { items } = await listObjects(this.#client, PODS, options);
    return items.toSorted((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
  }

  deployment(name: string, signal: AbortSignal): Promise<Stored<Deployment>> {
    return getObject(this.#client, DEPLOYMENTS, { namespace: this.#namespace, name }, { signal });
  }

  async endpoints(signal: AbortSignal): Promise<readonly Endpoint[]> {
    const labelSelector = `kubernetes.io/service-name=${names.service}`;
    const options = { namespace: this.#namespace, labelSelector, signal };
    const { items } = await listObjects(this.#client, ENDPOINT_SLICES, options);
    return readyEndpoints(items);
  }

  /** `10.96.0.20:80`. */
  async serviceAddress(signal: AbortSignal): Promise<string> {
    const at = { namespace: this.#namespace, name: names.service };
    const { spec } = await getObject(this.#client, SERVICES, at, { signal });
    return `${spec?.clusterIP ?? "?"}:${spec?.ports?.[0]?.port ?? "?"}`;
  }

  /**
   * Looks until `check` is true, showing what each pod does.
   *
   * @param describe What is waited for, for the message when it does not come.
   * @throws {SetupError} after `timeoutMs`.
   */
  async until(
    describe: string,
    check: (pods: readonly Stored<Pod>[], signal: AbortSignal) => Promise<boolean> | boolean,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<void> {
    const limited = deadline(signal, timeoutMs);
    let last = "";
    try {
      for (;;) {
        const pods = await this.pods(limited);
        const states = new Map(pods.map((pod) => [pod.metadata.name, podWords(pod)]));
        this.#screen.live(states);
        last = [...states].map(([name, state]) => `${name}: ${state}`).join("; ");
        if (await check(pods, limited)) return;
        await this.#clock.sleep(pollMs, limited);
      }
    } catch (error) {
      signal.throwIfAborted();
      if (!isAbort(error)) throw error;
      const now = last === "" ? "there are no pods" : last;
      throw new SetupError(`${describe} did not happen within ${timeoutMs / 1000} s; ${now}`, {
        cause: error,
      });
    }
  }

  /** Waits until the Deployment is rolled out, its Service leads to exactly its pods, and old ones are gone. */
  async settled(deployment: string, timeoutMs: number, signal: AbortSignal): Promise<void> {
    await this.until(
      `a settled deployment "${deployment}"`,
      async (all, inner) => {
        const current = await this.deployment(deployment, inner);
        const pods = all.filter(({ metadata }) => metadata.labels?.["tier"] === deployment);
        if (!rolledOut(current) || pods.length !== current.spec?.replicas) return false;
        if (!pods.every((pod) => isReady(pod))) return false;
        if (deployment !== names.backend) return true;
        const behind = (await this.endpoints(inner)).map(({ pod }) => pod);
        return pods.length === behind.length && pods.every((p) => behind.includes(p.metadata.name));
      },
      timeoutMs,
      signal,
    );
  }
}
