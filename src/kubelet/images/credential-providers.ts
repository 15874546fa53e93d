import { createHash } from "node:crypto";

import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { AssignedPod } from "../types.ts";
import {
  askCredentialPlugin,
  CredentialPluginError,
  type PluginAnswer,
  type PluginRequest,
} from "./credential-plugin.ts";
import type { CredentialProvider, TokenAttributes } from "./credential-provider-config.ts";
import { type CredentialSource, type Keyring, keyringOf, matchesImage } from "./credentials.ts";

/** A service account as plug-ins need it. */
export interface AccountFacts {
  readonly uid: string;
  readonly annotations: Readonly<Record<string, string>>;
}

/** What service accounts are asked at; both reject when the server refuses or is away. */
export interface AccountSource {
  account(
    at: { readonly namespace: string; readonly name: string },
    signal: AbortSignal,
  ): Promise<AccountFacts>;
  /** A token for `audience` that is bound to the pod (TokenRequest). */
  token(pod: AssignedPod, audience: string, signal: AbortSignal): Promise<string>;
  /** The pod is gone. */
  forget(podUID: string): void;
}

export interface CredentialProvidersOptions {
  readonly providers: readonly CredentialProvider[];
  readonly accounts: AccountSource;
  /** Of the programs, besides what their configuration adds. */
  readonly environment: Readonly<Record<string, string>>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Ends all programs. One that runs is shared, so the end of one pod does not end it. */
  readonly signal: AbortSignal;
  /** Default {@link askCredentialPlugin}. */
  readonly ask?: typeof askCredentialPlugin;
}

/** On whose behalf a plug-in is asked. */
interface Identity {
  readonly request: Omit<PluginRequest, "image">;
  /** Apart from everybody else's in the cache. */
  readonly cacheKey: string;
  /** Apart from everybody else's while the program runs. */
  readonly flightKey: string;
  readonly source: CredentialSource | undefined;
}

interface Cached {
  readonly auth: PluginAnswer["auth"];
  /** Monotonic milliseconds. */
  readonly expiresAt: number;
}

const nobody: Identity = { request: {}, cacheKey: "", flightKey: "", source: undefined };
const purgeMs = 15 * 60_000;
/** No registry and no image is called like this. */
const allImages = "<global>";

function registryOf(repository: string): string {
  return repository.split("/", 1)[0] ?? "";
}

function key(...parts: readonly unknown[]): string {
  return JSON.stringify(parts);
}

/**
 * Credentials from the programs that the node is configured with (KEP-2133), and with the service accounts of pods
 * (KEP-4412). A program that fails costs a warning and its credentials, never the pull.
 */
export class CredentialProviders {
  readonly #options: CredentialProvidersOptions;
  readonly #asks: readonly ProviderCalls[];

  constructor(options: CredentialProvidersOptions) {
    this.#options = options;
    this.#asks = options.providers.map((provider) => new ProviderCalls(provider, options));
  }

  /**
   * What the providers have for an image of this pod, those that come first in the configuration first.
   *
   * @param repository With its registry, without a tag.
   * @throws only when `signal` aborts.
   */
  async keyringFor(pod: AssignedPod, repository: string, signal: AbortSignal): Promise<Keyring> {
    const calls = this.#asks.filter((ask) => ask.isFor(repository));
    const keyrings = await Promise.all(
      calls.map(async (call) => this.#orNothing(call, pod, repository, signal)),
    );
    return keyrings.flat();
  }

  /** The pod is gone. */
  forget(podUID: string): void {
    this.#options.accounts.forget(podUID);
  }

  async #orNothing(
    call: ProviderCalls,
    pod: AssignedPod,
    repository: string,
    signal: AbortSignal,
  ): Promise<Keyring> {
    try {
      const keyring = await call.keyring(pod, repository, signal);
      call.lastFailure = "";
      return keyring;
    } catch (error) {
      signal.throwIfAborted();
      const message = errorMessage(error);
      const level = message === call.lastFailure ? "debug" : "warn";
      call.lastFailure = message;
      const { name, namespace = "" } = pod.metadata;
      this.#options.logger.log(level, "no credentials from a credential provider", {
        provider: call.name,
        image: repository,
        pod: `${namespace}/${name}`,
        error: message,
      });
      return [];
    }
  }
}

/** One provider: whom it is asked for, what it has answered, what it is being asked. */
class ProviderCalls {
  readonly #provider: CredentialProvider;
  readonly #options: CredentialProvidersOptions;
  readonly #cache = new Map<string, Cached>();
  readonly #running = new Map<string, Promise<PluginAnswer>>();
  #purgedAt: number;
  /** What was last said about it. */
  lastFailure = "";

  constructor(provider: CredentialProvider, options: CredentialProvidersOptions) {
    this.#provider = provider;
    this.#options = options;
    this.#purgedAt = options.clock.monotonic();
  }

  get name(): string {
    return this.#provider.name;
  }

  isFor(repository: string): boolean {
    return this.#provider.matchImages.some((pattern) => matchesImage(pattern, repository));
  }

  async keyring(pod: AssignedPod, repository: string, signal: AbortSignal): Promise<Keyring> {
    const identity = await this.#identify(pod, signal);
    if (identity === undefined) return [];
    const known = this.#cached(repository, identity);
    const auth = known ?? (await this.#ask(repository, identity, signal));
    return keyringOf(auth, identity.source);
  }

  /** Undefined where the provider is not for this pod. */
  async #identify(pod: AssignedPod, signal: AbortSignal): Promise<Identity | undefined> {
    const { token } = this.#provider;
    if (token === undefined) return nobody;
    const { namespace = "" } = pod.metadata;
    const name = pod.spec?.serviceAccountName ?? "";
    if (name === "") return token.requireServiceAccount ? undefined : nobody;
    const { accounts } = this.#options;
    const { annotations, uid } = await orSay("failed to get service account", () =>
      accounts.account({ namespace, name }, signal),
    );
    const chosen = chosenAnnotations(annotations, token);
    if (chosen === undefined) return undefined;
    const text = await orSay("failed to get service account token", () =>
      accounts.token(pod, token.audience, signal),
    );
    const hash = createHash("sha256").update(text).digest("hex");
    const perToken = token.cacheType === "Token" ? [hash] : [];
    const more = Object.keys(chosen).length === 0 ? {} : { serviceAccountAnnotations: chosen };
    return {
      request: { serviceAccountToken: text, ...more },
      cacheKey: key(namespace, name, uid, Object.entries(chosen), ...perToken),
      flightKey: key(hash, Object.entries(chosen)),
      source: { kind: "serviceAccount", uid, namespace, name },
    };
  }

  #cached(repository: string, { cacheKey }: Identity): PluginAnswer["auth"] | undefined {
    const now = this.#options.clock.monotonic();
    if (now - this.#purgedAt > purgeMs) {
      this.#purgedAt = now;
      for (const [each, { expiresAt }] of this.#cache) {
        if (expiresAt < now) this.#cache.delete(each);
      }
    }
    for (const scope of [repository, registryOf(repository), allImages]) {
      const found = this.#cache.get(key(scope, cacheKey));
      if (found !== undefined && found.expiresAt >= now) return found.auth;
    }
    return undefined;
  }

  async #ask(
    repository: string,
    identity: Identity,
    signal: AbortSignal,
  ): Promise<PluginAnswer["auth"]> {
    const answer = await abortable(this.#shared(repository, identity), signal);
    this.#refuseEcho(answer, identity);
    const cacheMs = answer.cacheMs ?? this.#provider.defaultCacheMs;
    if (cacheMs > 0) {
      const scopes = { Image: repository, Registry: registryOf(repository), Global: allImages };
      const expiresAt = this.#options.clock.monotonic() + cacheMs;
      const at = key(scopes[answer.cacheKeyType], identity.cacheKey);
      this.#cache.set(at, { auth: answer.auth, expiresAt });
    }
    return answer.auth;
  }

  /** Many pods of one image start at once: the program runs once for them. */
  async #shared(repository: string, identity: Identity): Promise<PluginAnswer> {
    const at = key(repository, identity.flightKey);
    const running = this.#running.get(at);
    if (running !== undefined) return running;
    const { ask = askCredentialPlugin, environment, signal } = this.#options;
    const request = { image: repository, ...identity.request };
    const fresh = ask(this.#provider, request, { environment }, signal).finally(() =>
      this.#running.delete(at),
    );
    this.#running.set(at, fresh);
    return fresh;
  }

  /** A token that is passed on must not be kept for longer than it lives, nor for other pods. */
  #refuseEcho(answer: PluginAnswer, { request }: Identity): void {
    const { serviceAccountToken } = request;
    if (serviceAccountToken === undefined || this.#provider.token?.cacheType === "Token") return;
    for (const { password } of answer.auth.values()) {
      if (password === serviceAccountToken) {
        throw new CredentialPluginError(
          "credential provider plugin returned the service account token as the password which is not allowed when service account cache type is not set to 'Token'",
        );
      }
    }
  }
}

/** Puts what was tried before the reason why it failed. */
async function orSay<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new CredentialPluginError(`${what}: ${errorMessage(error)}`, { cause: error });
  }
}

/** Undefined when one is missing without which the plug-in is not to be asked. */
function chosenAnnotations(
  annotations: AccountFacts["annotations"],
  { optionalAnnotations, requiredAnnotations }: TokenAttributes,
): Readonly<Record<string, string>> | undefined {
  if (requiredAnnotations.some((name) => annotations[name] === undefined)) return undefined;
  const wanted = [...requiredAnnotations, ...optionalAnnotations].toSorted();
  return Object.fromEntries(
    wanted.flatMap((name) => {
      const value = annotations[name];
      return value === undefined ? [] : [[name, value] as const];
    }),
  );
}

/** Waits no longer than `signal` allows for what goes on without us. */
async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
