import type { ApiClient } from "../../api/client.ts";
import { parseStored } from "../../api/object.ts";
import { objectPath } from "../../api/resource.ts";
import { SERVICE_ACCOUNTS } from "../../api/resources.ts";
import type { ServiceAccount } from "../../api/types.gen.ts";
import type { Clock } from "../../lib/clock.ts";
import type { AccountFacts, AccountSource } from "../images/credential-providers.ts";
import type { AssignedPod } from "../types.ts";
import { ServiceAccountTokens } from "../volumes/service-account-token.ts";

/** Service accounts of the node's pods, read anew each time: a node may not watch them (Node authorizer). */
export class ServiceAccounts implements AccountSource {
  readonly #client: ApiClient;
  /** Apart from those of volumes, whose age decides when volumes are written anew. */
  readonly #tokens: ServiceAccountTokens;

  constructor(options: {
    readonly client: ApiClient;
    readonly clock: Clock;
    readonly random: () => number;
  }) {
    this.#client = options.client;
    this.#tokens = new ServiceAccountTokens(options);
  }

  async account(
    at: { readonly namespace: string; readonly name: string },
    signal: AbortSignal,
  ): Promise<AccountFacts> {
    const path = objectPath(SERVICE_ACCOUNTS, at);
    const answer = await this.#client.request({ method: "GET", path, signal });
    const { metadata } = parseStored<ServiceAccount>(answer);
    return { uid: metadata.uid, annotations: metadata.annotations ?? {} };
  }

  async token(pod: AssignedPod, audience: string, signal: AbortSignal): Promise<string> {
    return this.#tokens.get(pod, { audience }, signal);
  }

  forget(podUID: string): void {
    this.#tokens.forget(podUID);
  }
}
