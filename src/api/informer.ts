import { jitteredBackoffMs } from "../lib/backoff.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage, isAbort } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { ApiClient, Query } from "./client.ts";
import { ApiError, isExpired, isForbidden } from "./errors.ts";
import type { Change, Informer } from "./informer-types.ts";
import { listPages } from "./list-pages.ts";
import { type CacheEntry, ObjectCache } from "./object-cache.ts";
import { collectionPath, type Resource } from "./resource.ts";
import { parseObjectState, parseWatchEvent } from "./watch-event.ts";

/** What informers of one server may share: whether it has refused streaming lists (KEP-3157). */
export interface StreamingSupport {
  refused: boolean;
}

export interface InformerOptions<T> {
  readonly client: ApiClient;
  readonly resource: Resource<unknown>;
  /** Undefined = all namespaces. */
  readonly namespace?: string;
  readonly fieldSelector?: string;
  readonly labelSelector?: string;
  /**
   * Keeps what the consumers need of an object as the server sent it. Throws (a ParseError) when the object cannot be
   * understood; the watch then ends and is tried again, because a skipped update would never come back.
   */
  readonly project: (object: unknown) => T;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
  /** Shared by informers of one server, so that only the first one has to find out. */
  readonly streaming?: StreamingSupport;
  /** Milliseconds of silence after which a watch counts as dead. The server sends a bookmark each minute. */
  readonly stallMs?: number;
  /** What to do when the server forbids it: which binding is missing, which flag names other credentials. */
  readonly whenForbidden?: string;
}

/** A cache of one collection that follows the server. See {@link Informer}. */
export function createInformer<T>(options: InformerOptions<T>): Informer<T> {
  return new Reflector(options);
}

const backoff = { baseMs: 800, maxMs: 30_000 };
const defaultStallMs = 120_000;
/** A watch that ends sooner is not a watch that the server ended for its own reasons. */
const shortWatchMs = 5_000;
const tornBeforePolling = 3;
const pollMs = 10_000;
/** Server-side end of a watch: between this and twice this, so that watches do not end all at once. */
const watchTimeoutSeconds = 300;

/** After an outage the first tries are spread over this. */
const returnSpreadMs = 500;

async function sleepUnlessAborted(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  try {
    await clock.sleep(ms, signal);
  } catch (error) {
    if (!isAbort(error)) throw error;
  }
}

/** How one watch went. */
interface WatchRecord {
  /** Monotonic; undefined while no watch was asked for. */
  startedAt: number | undefined;
  opened: boolean;
  events: number;
}

class Reflector<T> implements Informer<T> {
  readonly #options: InformerOptions<T>;
  readonly #logger: Logger;
  readonly #cache: ObjectCache<T>;
  readonly #streaming: StreamingSupport;
  readonly #firstSync = Promise.withResolvers<void>();
  /** Where to resume; undefined = a list is needed. */
  #resourceVersion: string | undefined;
  /** Tries in a row that brought nothing: sets the delay. */
  #failures = 0;
  /** Watches in a row that did not live; from three on, lists are polled instead. */
  #torn = 0;
  /** The last watch fell silent without a single event: the next list shows whether it kept something back. */
  #doubtful = false;
  /** Streaming lists in a row that broke off before their end. */
  #unfinishedLists = 0;
  #synced = false;
  /** Troubles told since the last watch that held: the same one again is told at debug level only. */
  readonly #said = new Set<string>();
  #started = false;
  /** How often the server has answered again after an outage. */
  #returns = 0;
  /** Ends the wait before the next try. */
  #pause = new AbortController();

  constructor(options: InformerOptions<T>) {
    this.#options = options;
    this.#logger = options.logger.child({ resource: options.resource.plural });
    this.#streaming = options.streaming ?? supportOf(options.client);
    this.#cache = new ObjectCache<T>((error) => {
      this.#logger.log("error", "informer listener threw", { error: errorMessage(error) });
    });
  }

  get synced(): boolean {
    return this.#synced;
  }

  get size(): number {
    return this.#cache.size;
  }

  get(key: string): T | undefined {
    return this.#cache.get(key);
  }

  values(): IterableIterator<T> {
    return this.#cache.values();
  }

  subscribe(listener: (change: Change<T>) => void): () => void {
    return this.#cache.subscribe(listener);
  }

  async whenSynced(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const aborted = Promise.withResolvers<never>();
    const onAbort = (): void => aborted.reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      await Promise.race([this.#firstSync.promise, aborted.promise]);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  async run(signal: AbortSignal): Promise<void> {
    if (this.#started) throw new Error("an informer runs once");
    this.#started = true;
    const unsubscribe = this.#options.client.onReturn?.(() => {
      this.#returns += 1;
      this.#pause.abort();
    });
    try {
      while (!signal.aborted) await this.#followOnce(signal);
    } finally {
      unsubscribe?.();
    }
  }

  /** One {@link #follow}, and the wait before the next. */
  async #followOnce(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    const returns = this.#returns;
    const delayMs = await this.#follow(signal);
    this.#pause = new AbortController();
    if (delayMs > 0 && returns === this.#returns) {
      await sleepUnlessAborted(clock, delayMs, AbortSignal.any([signal, this.#pause.signal]));
    }
    if (returns === this.#returns) return;
    // All informers of all nodes wake at once; what failed before says nothing any more.
    this.#failures = 0;
    await sleepUnlessAborted(clock, returnSpreadMs * random(), signal);
  }

  /** One list, if needed, and one watch. Returns the milliseconds to wait before the next. */
  async #follow(signal: AbortSignal): Promise<number> {
    const polling = this.#torn >= tornBeforePolling;
    const watch: WatchRecord = { startedAt: undefined, opened: false, events: 0 };
    try {
      const stream = !this.#streaming.refused && this.#unfinishedLists < 2 && !polling;
      if ((this.#resourceVersion === undefined && !stream) || polling) await this.#list(signal);
      watch.startedAt = this.#options.clock.monotonic();
      if (this.#resourceVersion === undefined) await this.#streamingList(watch, signal);
      else await this.#watch(this.#resourceVersion, watch, polling, signal);
      return this.#ended(watch);
    } catch (error) {
      if (signal.aborted) return 0;
      return this.#broken(error, watch, polling);
    }
  }

  #query(): Query {
    const { fieldSelector, labelSelector } = this.#options;
    return { fieldSelector, labelSelector };
  }

  #path(): string {
    return collectionPath(this.#options.resource, this.#options.namespace);
  }

  /** A complete list by pages. */
  async #list(signal: AbortSignal): Promise<void> {
    const entries = new Map<string, CacheEntry<T>>();
    let resourceVersion = "";
    for await (const page of listPages(this.#options.client, this.#path(), this.#query(), signal)) {
      if (page.restart) entries.clear();
      for (const [index, item] of page.items.entries()) {
        const state = parseObjectState(item, `$.items[${index}]`);
        entries.set(state.key, { state, object: this.#options.project(item) });
      }
      ({ resourceVersion } = page);
    }
    this.#replace(entries, resourceVersion);
    this.#unfinishedLists = 0;
  }

  /** List and watch in one stream: the collection comes as ADDED events, then a marked bookmark, then changes. */
  async #streamingList(watch: WatchRecord, signal: AbortSignal): Promise<void> {
    const query = { sendInitialEvents: true, resourceVersionMatch: "NotOlderThan" };
    let initial: Map<string, CacheEntry<T>> | undefined = new Map();
    this.#unfinishedLists += 1;
    try {
      for await (const value of this.#open(query, watch, false, signal)) {
        if (initial === undefined) {
          this.#apply(value);
          continue;
        }
        const event = parseWatchEvent(value);
        switch (event.type) {
          case "ERROR":
            throw event.error;
          case "BOOKMARK":
            if (!event.initialEventsEnd) break;
            this.#unfinishedLists = 0;
            this.#replace(initial, event.resourceVersion);
            initial = undefined;
            break;
          case "DELETED":
            initial.delete(event.state.key);
            break;
          case "ADDED":
          case "MODIFIED": {
            const object = this.#options.project(event.object);
            initial.set(event.state.key, { state: event.state, object });
          }
        }
      }
    } catch (error) {
      if (initial === undefined || !refusesStreaming(error)) throw error;
      this.#streaming.refused = true;
      this.#logger.log("info", "server refuses streaming lists, listing by pages", {
        error: errorMessage(error),
      });
    }
  }

  async #watch(
    resourceVersion: string,
    watch: WatchRecord,
    polling: boolean,
    signal: AbortSignal,
  ): Promise<void> {
    for await (const value of this.#open({ resourceVersion }, watch, polling, signal)) {
      this.#apply(value);
    }
  }

  async *#open(
    query: Query,
    watch: WatchRecord,
    polling: boolean,
    signal: AbortSignal,
  ): AsyncGenerator<unknown, void, undefined> {
    const { client, random } = this.#options;
    const events = client.watch({
      path: this.#path(),
      query: {
        ...this.#query(),
        ...query,
        allowWatchBookmarks: true,
        timeoutSeconds: Math.floor(watchTimeoutSeconds * (1 + random())),
      },
      // While polling, a watch is a trial: it may not hold up the next list.
      stallMs: polling ? Math.min(pollMs, this.#stallMs) : this.#stallMs,
      onOpen: () => {
        watch.opened = true;
      },
      signal,
    });
    for await (const value of events) {
      watch.opened = true;
      yield value;
      watch.events += 1;
    }
  }

  #apply(value: unknown): void {
    const event = parseWatchEvent(value);
    switch (event.type) {
      case "ERROR":
        throw event.error;
      case "BOOKMARK":
        this.#resourceVersion = event.resourceVersion;
        return;
      case "DELETED":
        this.#cache.remove(event.state);
        break;
      case "ADDED":
      case "MODIFIED":
        this.#cache.upsert({
          state: event.state,
          object: this.#options.project(event.object),
        });
    }
    this.#resourceVersion = event.state.resourceVersion;
  }

  #replace(entries: ReadonlyMap<string, CacheEntry<T>>, resourceVersion: string): void {
    const changes = this.#cache.replace(entries);
    this.#resourceVersion = resourceVersion;
    if (this.#doubtful) {
      this.#doubtful = false;
      this.#torn = changes > 0 ? this.#torn + 1 : 0;
    }
    if (this.#synced) return;
    this.#synced = true;
    this.#firstSync.resolve();
  }

  get #stallMs(): number {
    return this.#options.stallMs ?? defaultStallMs;
  }

  #livedMs({ startedAt }: WatchRecord): number {
    return startedAt === undefined ? 0 : this.#options.clock.monotonic() - startedAt;
  }

  #livedLong(watch: WatchRecord): boolean {
    return this.#livedMs(watch) >= shortWatchMs;
  }

  /** The server closed the stream in good order. */
  #ended(watch: WatchRecord): number {
    if (this.#livedLong(watch)) {
      this.#torn = 0;
      this.#failures = 0;
      return 0;
    }
    // A streaming list that was refused or cut short: the next try takes another way.
    if (this.#resourceVersion === undefined) return 0;
    this.#torn += 1;
    return this.#failures === 0 ? this.#immediately() : this.#delay();
  }

  #broken(error: unknown, watch: WatchRecord, polling: boolean): number {
    const watched = watch.startedAt !== undefined;
    const held = watch.opened && this.#livedLong(watch);
    if (held) {
      this.#failures = 0;
      this.#judge(watch, polling);
    } else if (watched && (watch.opened || error instanceof ApiError || this.#livedLong(watch))) {
      // No answer at all is no torn watch: then lists fail as well, and only patience helps.
      this.#torn += 1;
    }
    const expired = isExpired(error);
    if (expired) this.#resourceVersion = undefined;
    const asked = error instanceof ApiError ? (error.retryAfterSeconds ?? 0) * 1000 : 0;
    const first = this.#failures === 0 && (held || (expired && watch.opened));
    const delayMs = Math.max(asked, first ? this.#immediately() : this.#delay());
    if (held) this.#said.clear();
    const message = this.#explain(error);
    const news = !this.#said.has(message);
    this.#said.add(message);
    this.#logger.log(expired || first || !news ? "debug" : "warn", "watch broke, will resume", {
      error: message,
      failures: this.#failures,
      delayMs: Math.round(delayMs),
      polling: this.#torn >= tornBeforePolling,
    });
    return delayMs;
  }

  #explain(error: unknown): string {
    const { whenForbidden } = this.#options;
    const message = errorMessage(error);
    return isForbidden(error) && whenForbidden !== undefined
      ? `${message}; ${whenForbidden}`
      : message;
  }

  /** What a watch that held for a while says about watches here. */
  #judge(watch: WatchRecord, polling: boolean): void {
    if (watch.events > 0) {
      this.#torn = 0;
    } else if (polling) {
      // A trial that held ends the polling; if the next one keeps changes back, polling resumes at once.
      this.#torn = tornBeforePolling - 1;
    } else if (this.#livedMs(watch) >= this.#stallMs) {
      // Silence is right for a collection that rests, on a server without bookmarks. Some proxies swallow events.
      this.#doubtful = true;
      this.#resourceVersion = undefined;
    } else {
      this.#torn = 0;
    }
  }

  /** The first break after a good time is mended at once; the next one is not. */
  #immediately(): number {
    this.#failures = 1;
    return 0;
  }

  #delay(): number {
    const { random } = this.#options;
    this.#failures += 1;
    if (this.#torn >= tornBeforePolling) return pollMs * (0.9 + 0.2 * random());
    return jitteredBackoffMs(this.#failures, backoff, random);
  }
}

const supports = new WeakMap<ApiClient, StreamingSupport>();

/** What informers of one client share: they speak to one server, which refuses all of them or none. */
function supportOf(client: ApiClient): StreamingSupport {
  const known = supports.get(client) ?? { refused: false };
  supports.set(client, known);
  return known;
}

/** Whether the server does not do streaming lists, as opposed to failing at one. */
function refusesStreaming(error: unknown): boolean {
  if (!(error instanceof ApiError)) return false;
  if ([400, 405, 406, 415, 422, 501].includes(error.status)) return true;
  // kube-apiserver over an etcd without progress notifications answers 500 and "storage feature ... is disabled".
  return /is disabled|not supported|unsupported/i.test(error.message);
}
