import { type Dispatcher, Pool } from "undici";

import { type Clock, within } from "../lib/clock.ts";
import { errorCode, isAbort, ParseError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { ApiClient, ApiRequest, Query, WatchRequest } from "./client.ts";
import { abortLater, type LaterAbort } from "./abort-later.ts";
import { type Credentials, type CredentialSource, createCredentialSource } from "./credentials.ts";
import { ApiUnavailableError } from "./errors.ts";
import type { Kubeconfig } from "./kubeconfig-types.ts";
import { endLateAnswers } from "./late-answers.ts";
import { LineSplitter } from "./line-splitter.ts";
import { Reachability } from "./reachability.ts";
import { tlsHints } from "./tls-hints.ts";
import { parseRetryAfter, responseToError } from "./response-error.ts";

export interface HttpClientOptions {
  readonly kubeconfig: Kubeconfig;
  /** For example `remora/0.1.0 (linux/amd64) kubelet`. */
  readonly userAgent: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Environment of credential plug-ins (HOME and the like); PATH is always set. */
  readonly pluginEnvironment?: Readonly<Record<string, string>>;
  /** False: never offer HTTP/2. Each watch and each concurrent request then has its own connection. */
  readonly http2?: boolean;
  /** Shared by the clients of one server; default one of its own. */
  readonly reachability?: Reachability;
}

/** An {@link ApiClient} over the network. */
export interface HttpClient extends ApiClient {
  onReturn(listener: () => void): () => void;
  /** Drops all connections and reads the credentials again; what is under way fails as unavailable. */
  reset(): void;
  /** Ends all connections; afterwards every call fails. */
  close(): Promise<void>;
}

type Half = "requests" | "watches";
const halves: readonly Half[] = ["requests", "watches"];

/** One set of connections with one set of TLS credentials. */
interface Transport {
  /** Two, so that a burst of events cannot fill the window a heartbeat needs. */
  readonly pools: Record<Half, Pool>;
  readonly open: (half: Half) => Pool;
  readonly tlsDigest: string;
  /** Aborts when newer credentials replaced this transport: watches then end as if the server had closed them. */
  readonly retired: AbortController;
  /** Calls in a row that got no answer. */
  failures: number;
  /** Monotonic milliseconds of the first of them. */
  failingSince: number;
  /** Monotonic milliseconds of the last byte of each half; before the first, of its opening. */
  readonly heardAt: Record<Half, number>;
}

const defaultDeadlineMs = 30_000;
/** How long a server may take to open a watch. */
const watchAnswerMs = 30_000;
/** A half-dead TCP connection keeps swallowing requests for up to 15 minutes; two in a row are enough. */
const failuresBeforeReset = 2;
/** Below the 90 s after which a Go server closes an idle connection. */
const idleMs = 50_000;
const connectMs = 10_000;
const maxConnections = 32;

/** Nothing was processed, or nothing changes if it was: safe to repeat at once for GET. */
const staleConnectionCodes = new Set([
  "ECONNRESET",
  "EPIPE",
  "UND_ERR_SOCKET",
  "UND_ERR_INFO",
  "UND_ERR_DESTROYED",
  "UND_ERR_CLOSED",
]);

/** A client for the server and identity of one kubeconfig. Make a second one for work that must not share connections. */
export function createHttpClient(options: HttpClientOptions): HttpClient {
  endLateAnswers();
  return new UndiciClient(options);
}

class UndiciClient implements HttpClient {
  readonly #options: HttpClientOptions;
  readonly #credentials: CredentialSource;
  readonly #origin: string;
  readonly #prefix: string;
  #transport: Transport | undefined;
  /** Pools that are being emptied. */
  readonly #closing = new Set<Promise<void>>();
  readonly #reachability: Reachability;
  readonly #unsubscribe: () => void;
  /** What calls are told that we cut off ourselves: it says nothing about the server. */
  readonly #resets = new WeakSet<object>();
  #closed = false;

  constructor(options: HttpClientOptions) {
    const url = new URL(options.kubeconfig.cluster.server);
    this.#options = options;
    this.#reachability = options.reachability ?? new Reachability();
    this.#unsubscribe = this.#reachability.subscribe((lostAt) => {
      this.#dropSilent(lostAt);
    });
    this.#origin = url.origin;
    this.#prefix = url.pathname.replace(/\/+$/, "");
    this.#credentials = createCredentialSource(
      options.kubeconfig,
      options.clock,
      options.pluginEnvironment,
    );
  }

  async request(request: ApiRequest): Promise<unknown> {
    return within(request.signal, request.deadlineMs ?? defaultDeadlineMs, async (signal) => {
      try {
        return await this.#requestOnce(request, signal);
      } catch (error) {
        // The server may close an idle connection in the moment we use it; reading again is harmless.
        if (request.method !== "GET" || signal.aborted || !isStaleConnection(error)) throw error;
        return this.#requestOnce(request, signal);
      }
    });
  }

  async *watch(request: WatchRequest): AsyncGenerator<unknown, void, undefined> {
    const what = `watch ${request.path}`;
    const { transport, credentials } = await this.#connect(what, request.signal);
    const signal = AbortSignal.any([request.signal, transport.retired.signal]);
    const later = abortLater(signal);
    try {
      const response = await dispatch(transport.pools.watches, later, {
        method: "GET",
        path: this.#target(request.path, { ...request.query, watch: true }),
        headers: this.#headers(credentials),
        // An open watch may be quiet for long, an answer may not.
        headersTimeout: Math.min(request.stallMs, watchAnswerMs),
        bodyTimeout: request.stallMs,
      });
      if (response.statusCode !== 200) {
        throw await this.#refusal(what, response, () => this.#answered(transport, "watches"));
      }
      this.#answered(transport, "watches");
      request.onOpen?.();
      yield* this.#readLines(what, response.body, transport);
    } catch (error) {
      request.signal.throwIfAborted();
      if (transport.retired.signal.aborted) return;
      throw this.#classify(what, error, transport);
    } finally {
      later.release();
    }
  }

  reset(): void {
    const old = this.#transport;
    this.#transport = undefined;
    this.#credentials.invalidate();
    if (old === undefined) return;
    const reason = this.#resetReason();
    this.#own(old.pools.requests.destroy(reason));
    this.#own(old.pools.watches.destroy(reason));
  }

  onReturn(listener: () => void): () => void {
    return this.#reachability.subscribe(() => listener());
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#unsubscribe();
    this.reset();
    await Promise.all(this.#closing);
  }

  async #requestOnce(request: ApiRequest, signal: AbortSignal): Promise<unknown> {
    const what = `${request.method} ${request.path}`;
    const later = abortLater(signal);
    let transport: Transport | undefined;
    try {
      const connected = await this.#connect(what, signal);
      ({ transport } = connected);
      const body = request.body === undefined ? undefined : JSON.stringify(request.body);
      const response = await dispatch(transport.pools.requests, later, {
        method: request.method,
        path: this.#target(request.path, request.query ?? {}),
        headers: this.#headers(
          connected.credentials,
          body === undefined ? undefined : (request.contentType ?? "application/json"),
        ),
        ...(body === undefined ? {} : { body }),
        // The deadline covers these.
        headersTimeout: 0,
        bodyTimeout: 0,
      });
      if (response.statusCode < 200 || response.statusCode > 299) {
        const answered = connected.transport;
        throw await this.#refusal(what, response, () => this.#answered(answered, "requests"));
      }
      const text = await response.body.text();
      this.#answered(transport, "requests");
      return parseBody(what, text, header(response, "content-type"));
    } catch (error) {
      request.signal.throwIfAborted();
      const ms = request.deadlineMs ?? defaultDeadlineMs;
      const shown = signal.aborted
        ? new ApiUnavailableError(`${what}: no answer within ${ms} ms`, { cause: error })
        : error;
      throw transport === undefined ? shown : this.#classify(what, shown, transport);
    } finally {
      later.release();
    }
  }

  /** The current transport, rebuilt when the TLS credentials changed since it was made. */
  async #connect(
    what: string,
    signal: AbortSignal,
  ): Promise<{ transport: Transport; credentials: Credentials }> {
    signal.throwIfAborted();
    let credentials: Credentials;
    try {
      credentials = await this.#credentials.current(signal);
    } catch (error) {
      signal.throwIfAborted();
      const message = error instanceof Error ? error.message : String(error);
      throw new ApiUnavailableError(`${what}: ${message}`, { cause: error });
    }
    if (this.#closed) throw new ApiUnavailableError(`${what}: the client is closed`);
    let transport = this.#transport;
    if (transport?.tlsDigest !== credentials.tlsDigest) {
      if (transport !== undefined) this.#retire(transport);
      transport = this.#openTransport(credentials);
      this.#transport = transport;
    }
    return { transport, credentials };
  }

  #openTransport(credentials: Credentials): Transport {
    const { cluster } = this.#options.kubeconfig;
    const tls = {
      ...(credentials.caPEM === undefined ? {} : { ca: credentials.caPEM }),
      ...(credentials.clientCertPEM === undefined ? {} : { cert: credentials.clientCertPEM }),
      ...(credentials.clientKeyPEM === undefined ? {} : { key: credentials.clientKeyPEM }),
      ...(cluster.tlsServerName === undefined ? {} : { servername: cluster.tlsServerName }),
      rejectUnauthorized: !cluster.insecureSkipTLSVerify,
      timeout: connectMs,
      keepAlive: true,
      keepAliveInitialDelay: 15_000,
    };
    // HTTP/2 for both, measured against kube-apiserver 1.36 with 20 watches and 1000 requests, 50 at a time: 370 ms,
    // 185 us of CPU each and one connection, against 510 ms, 278 us and 80 connections for keep-alive HTTP/1.1; 5 MB
    // less memory afterwards; a single request takes 1.1 instead of 1.0 ms. The second connection
    // costs 0.3 MB.
    const pool = {
      allowH2: this.#options.http2 ?? true,
      h2Options: { maxConcurrentStreams: 1000, pingInterval: 30_000 },
      keepAliveTimeout: idleMs,
      keepAliveMaxTimeout: idleMs,
      connect: { ...tls, preferH2: true },
    };
    // The limit matters to servers without HTTP/2 only. Watches must not have one: each holds its connection.
    const limits = { requests: { connections: maxConnections }, watches: {} };
    const open = (half: Half): Pool => new Pool(this.#origin, { ...pool, ...limits[half] });
    const now = this.#options.clock.monotonic();
    return {
      pools: { requests: open("requests"), watches: open("watches") },
      open,
      tlsDigest: credentials.tlsDigest,
      retired: new AbortController(),
      failures: 0,
      failingSince: 0,
      heardAt: { requests: now, watches: now },
    };
  }

  /** Lets requests under way finish, and ends the watches so that they start again with the new credentials. */
  #retire(transport: Transport): void {
    this.#options.logger.log("info", "API credentials changed, connections renewed");
    transport.retired.abort();
    this.#own(transport.pools.requests.close());
    this.#own(transport.pools.watches.close());
  }

  #own(closing: Promise<void>): void {
    const owned = closing
      .catch((error: unknown) => {
        this.#options.logger.log("debug", "closing API connections failed", {
          error: String(error),
        });
      })
      .finally(() => this.#closing.delete(owned));
    this.#closing.add(owned);
  }

  #target(path: string, query: Query): string {
    const parameters = new URLSearchParams();
    for (const [key, value] of Object.entries(query)) {
      if (value !== undefined) parameters.append(key, String(value));
    }
    const text = parameters.toString();
    return `${this.#prefix}${path}${text === "" ? "" : `?${text}`}`;
  }

  #headers(credentials: Credentials, contentType?: string): Record<string, string> {
    return {
      accept: "application/json",
      "user-agent": this.#options.userAgent,
      ...(contentType === undefined ? {} : { "content-type": contentType }),
      ...(credentials.token === undefined ? {} : { authorization: `Bearer ${credentials.token}` }),
    };
  }

  async *#readLines(
    what: string,
    body: AsyncIterable<Buffer>,
    transport: Transport,
  ): AsyncGenerator<unknown, void, undefined> {
    const splitter = new LineSplitter();
    for await (const chunk of body) {
      this.#heard(transport, "watches");
      for (const line of splitter.push(chunk)) yield parseLine(what, line);
    }
    if (splitter.unfinished) {
      throw new ApiUnavailableError(`${what}: the stream ended in the middle of an event`);
    }
  }

  async #refusal(
    what: string,
    response: Dispatcher.ResponseData,
    answered: () => void,
  ): Promise<Error> {
    const body = await response.body.text();
    answered();
    // A rotated token or certificate may already lie on disk.
    if (response.statusCode === 401) this.#credentials.invalidate();
    const retryAfterSeconds = parseRetryAfter(
      header(response, "retry-after"),
      this.#options.clock.now(),
    );
    return responseToError(what, { status: response.statusCode, body, retryAfterSeconds });
  }

  #answered(transport: Transport, half: Half): void {
    this.#heard(transport, half);
    this.#reachability.noteAnswer();
  }

  #heard(transport: Transport, half: Half): void {
    transport.failures = 0;
    transport.heardAt[half] = this.#options.clock.monotonic();
  }

  /**
   * Gives up connections on which nothing came since `lostAt`: the other end may have dropped them meanwhile, and TCP
   * would find out in minutes.
   */
  #dropSilent(lostAt: number): void {
    const transport = this.#transport;
    if (transport === undefined) return;
    const silent = halves.filter((half) => transport.heardAt[half] < lostAt);
    if (silent.length === halves.length) {
      this.reset();
      return;
    }
    for (const half of silent) {
      const old = transport.pools[half];
      transport.pools[half] = transport.open(half);
      transport.heardAt[half] = this.#options.clock.monotonic();
      this.#own(old.destroy(this.#resetReason()));
    }
  }

  #isReset(error: unknown): boolean {
    return typeof error === "object" && error !== null && this.#resets.has(error);
  }

  #resetReason(): Error {
    const reason = new ApiUnavailableError("the connections to the API server were reset");
    this.#resets.add(reason);
    return reason;
  }

  /** Turns a transport failure into {@link ApiUnavailableError} and counts it; other errors pass. */
  #classify(what: string, error: unknown, transport: Transport): unknown {
    if (isAnswered(error)) return error;
    if (transport === this.#transport && !this.#isReset(error) && !isQuiet(error)) {
      transport.failures += 1;
      if (transport.failures === 1) transport.failingSince = this.#options.clock.monotonic();
      if (transport.failures >= failuresBeforeReset) {
        // Told once per outage: retries are no news.
        const level = this.#reachability.noteLoss(transport.failingSince) ? "warn" : "debug";
        this.#options.logger.log(level, "API server does not answer, connections reset", {
          failures: transport.failures,
        });
        this.reset();
      }
    }
    if (error instanceof ApiUnavailableError) return error;
    return new ApiUnavailableError(`${what}: ${describeFailure(error)}`, { cause: error });
  }
}

/** undici looks at the signal only once it has a connection; a caller must not wait for that. */
async function dispatch(
  pool: Pool,
  { callers: signal, later }: LaterAbort,
  options: Dispatcher.RequestOptions,
): Promise<Dispatcher.ResponseData> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([pool.request({ ...options, signal: later }), aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** Whether the server did answer, so that the connection is good. */
function isAnswered(error: unknown): boolean {
  return error instanceof ParseError || errorCode(error) === "REMORA_API";
}

/**
 * A watch without a word for long is no loss: servers that cannot tell their progress (etcd before 3.4.25) leave idle
 * resources without bookmarks. Whether the server is there shows when the watch is opened again.
 */
function isQuiet(error: unknown): boolean {
  return errorCode(error) === "UND_ERR_BODY_TIMEOUT";
}

function isStaleConnection(error: unknown): boolean {
  if (!(error instanceof ApiUnavailableError)) return false;
  return staleConnectionCodes.has(errorCode(error.cause) ?? "");
}

function header(response: Dispatcher.ResponseData, name: string): string | undefined {
  const value = response.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

function parseBody(what: string, text: string, contentType: string | undefined): unknown {
  if (text === "") return undefined;
  if (contentType !== undefined && !contentType.includes("json")) return text;
  return parseLine(what, text);
}

function parseLine(what: string, text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return value;
  } catch (error) {
    throw new ParseError(what, "JSON", { cause: error });
  }
}

/** A sentence for people out of what Node, OpenSSL and undici throw. Holds no header and no body. */
function describeFailure(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) {
    return error.errors.map(describeFailure).join(", ");
  }
  const code = errorCode(error);
  if (code === "UND_ERR_BODY_TIMEOUT" || code === "UND_ERR_HEADERS_TIMEOUT") {
    return "the stream fell silent";
  }
  if (isAbort(error)) return "the request was cut off";
  const message = error instanceof Error ? error.message : String(error);
  const text = code === undefined || message.includes(code) ? message : `${message} (${code})`;
  const hint = tlsHints[code ?? ""];
  return hint === undefined ? text : `${text}; ${hint}`;
}
