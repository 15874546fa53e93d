import { availableParallelism } from "node:os";
import type { Duplex, Readable } from "node:stream";

import Docker from "dockerode";

import { type Clock, deadline, notNeeded, within } from "../../lib/clock.ts";
import { isAbort } from "../../lib/errors.ts";
import { asRecord, asString, optionalString } from "../../lib/guard.ts";
import { RuntimeError } from "../errors.ts";
import { engineError, isTransportError, refusalOf, unavailable } from "./errors.ts";
import { Gate } from "./gate.ts";
import { hijackConnection } from "./upgrade.ts";

/** Oldest and newest minor of API 1.x that this adapter is written and tested for. */
export const apiFloor = 41;
export const apiCeiling = 55;

/**
 * Which limit a call counts against. Reads and writes together stay under 32; `wait` calls (stop with a grace) idle in
 * the engine and must not keep others from starting. `start` is what keeps the engine's processors busy (create, start):
 * more of them at a time make all of them later.
 */
export type Lane = "read" | "write" | "wait" | "start";

/** A start that takes longer is waiting for something (a mount, a hook) and does not hold up the next one. */
const startPlaceMs = 3000;

type QueryValue = string | number | boolean | readonly string[] | undefined;

/** One request to the engine. */
export interface EngineCall {
  /** For messages: `create container`. */
  readonly op: string;
  readonly method: "GET" | "HEAD" | "POST" | "DELETE";
  /** Without the version prefix. */
  readonly path: string;
  readonly query?: Readonly<Record<string, QueryValue>>;
  readonly body?: Readonly<Record<string, unknown>>;
  /** A tar archive as the body. */
  readonly tar?: Buffer;
  readonly headers?: Readonly<Record<string, string>>;
  /** Deadline of the response (of its headers for {@link DockerClient.open}). 10 s by default. */
  readonly timeoutMs?: number;
  /** By default `read` for GET, `write` for the rest. */
  readonly lane?: Lane;
}

/** What `GET /version` told, and the version both sides speak. */
export interface EngineVersion {
  readonly name: string;
  readonly version: string;
  /** Minor of API 1.x in use. */
  readonly api: number;
  readonly arch: string;
}

function encodeQuery(query: Readonly<Record<string, QueryValue>>): string {
  const out = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value === undefined) continue;
    const values = typeof value === "object" ? value : [String(value)];
    for (const one of values) out.append(key, one);
  }
  return out.toString();
}

function minorOf(version: string): number {
  const match = /^1\.(\d+)$/.exec(version);
  return match === null ? Number.NaN : Number(match[1]);
}

/** Picks the API version. @throws {RuntimeError} `Unsupported` when there is none in common. */
export function negotiate(response: unknown): EngineVersion {
  const body = asRecord(response, "version");
  const newest = minorOf(asString(body["ApiVersion"], "version.ApiVersion"));
  const oldest = minorOf(optionalString(body["MinAPIVersion"]) ?? "1.12");
  const version = optionalString(body["Version"]) ?? "unknown";
  if (!(newest >= apiFloor)) {
    throw new RuntimeError(
      "Unsupported",
      `Docker Engine ${version} speaks API ${String(body["ApiVersion"])}; Remora needs 1.${apiFloor} (Docker 20.10) or newer`,
    );
  }
  if (oldest > apiCeiling) {
    throw new RuntimeError(
      "Unsupported",
      `Docker Engine ${version} accepts API ${String(body["MinAPIVersion"])} and newer; this Remora speaks up to 1.${apiCeiling}: update Remora`,
    );
  }
  const platform = body["Components"];
  const podman = JSON.stringify(platform ?? "").includes("Podman");
  return {
    name: podman ? "podman" : "docker",
    version,
    api: Math.min(newest, apiCeiling),
    arch: optionalString(body["Arch"]) ?? "",
  };
}

const okStatus = { 101: true, 200: true, 201: true, 202: true, 204: true, 304: true };

/** The Docker Engine API on one unix socket: versioned, limited, every call with a deadline, typed errors. */
export class DockerClient {
  readonly socketPath: string;
  readonly #docker: Docker;
  readonly #clock: Clock;
  readonly #gates: Readonly<Record<Lane, Gate>> = {
    read: new Gate(8),
    write: new Gate(24),
    wait: new Gate(512),
    start: new Gate(Math.max(4, availableParallelism())),
  };
  #version: EngineVersion | undefined;
  #negotiating: Promise<EngineVersion> | undefined;

  constructor(options: { readonly socketPath: string; readonly clock: Clock }) {
    this.socketPath = options.socketPath;
    this.#clock = options.clock;
    // Always an explicit socket: otherwise DOCKER_* variables choose the target.
    this.#docker = new Docker({ socketPath: options.socketPath });
  }

  /** The negotiated version; asks the engine when it is not known or the connection broke since. */
  async version(signal: AbortSignal): Promise<EngineVersion> {
    signal.throwIfAborted();
    if (this.#version !== undefined) return this.#version;
    // Shared by all callers, so no caller's signal may end it; it has its own deadline.
    this.#negotiating ??= this.#askVersion().finally(() => {
      this.#negotiating = undefined;
    });
    return this.#negotiating;
  }

  /** Forgets the version: the engine may have been upgraded while it was away. */
  renegotiate(): void {
    this.#version = undefined;
  }

  /** The response's JSON, or its bytes when it is none. A lost connection is retried once for GET only. */
  async call(call: EngineCall, signal: AbortSignal): Promise<unknown> {
    const { api } = await this.version(signal);
    const lane = laneOf(call);
    const leave = await this.#gates[lane].enter(signal);
    const done = new AbortController();
    if (lane === "start") {
      void this.#clock.sleep(startPlaceMs, done.signal).then(leave, () => undefined);
    }
    try {
      try {
        return await this.#dialWithin(call, `/v1.${api}`, signal);
      } catch (error) {
        // A socket kept alive across an engine restart fails on its first use only.
        if (call.method !== "GET" || !isConnectionLost(error)) throw error;
        return await this.#dialWithin(call, `/v1.${api}`, signal);
      }
    } finally {
      done.abort(notNeeded);
      leave();
    }
  }

  /** Opens a streaming response: the deadline ends with its headers, `signal` covers all of it. */
  async open(call: EngineCall, signal: AbortSignal): Promise<Readable> {
    const { api } = await this.version(signal);
    const late = new AbortController();
    const done = new AbortController();
    const whole = AbortSignal.any([signal, late.signal]);
    const timeoutMs = call.timeoutMs ?? 10_000;
    void this.#clock.sleep(timeoutMs, done.signal).then(
      () => late.abort(new DOMException("deadline", "TimeoutError")),
      () => undefined,
    );
    try {
      return (await this.#dial(call, `/v1.${api}`, { signal: whole, stream: true })) as Readable;
    } catch (error) {
      throw this.#translate(call, error, signal, whole);
    } finally {
      done.abort(notNeeded);
    }
  }

  /** Upgrades a request to a raw two-way stream; it counts against no limit. */
  async hijack(call: EngineCall, signal: AbortSignal): Promise<Duplex> {
    const { api } = await this.version(signal);
    const limited = deadline(signal, call.timeoutMs ?? 10_000);
    const query = encodeQuery(call.query ?? {});
    try {
      return await hijackConnection(
        {
          socketPath: this.socketPath,
          path: `/v1.${api}${call.path}${query === "" ? "" : `?${query}`}`,
          body: JSON.stringify(call.body ?? {}),
        },
        limited,
      );
    } catch (error) {
      throw this.#translate(call, error, signal, limited);
    }
  }

  async #askVersion(): Promise<EngineVersion> {
    const call: EngineCall = { op: "connect to Docker", method: "GET", path: "/version" };
    const version = negotiate(await this.#dialWithin(call, "", new AbortController().signal));
    this.#version = version;
    return version;
  }

  async #dialWithin(call: EngineCall, prefix: string, signal: AbortSignal): Promise<unknown> {
    return within(signal, call.timeoutMs ?? 10_000, async (limited) => {
      try {
        return await this.#dial(call, prefix, { signal: limited, stream: false });
      } catch (error) {
        throw this.#translate(call, error, signal, limited);
      }
    });
  }

  #dial(
    call: EngineCall,
    prefix: string,
    mode: { readonly signal: AbortSignal; readonly stream: boolean },
  ): Promise<unknown> {
    // The client library writes into its options, so each call gets fresh ones; the query is encoded here because it
    // would otherwise put the whole body, secrets included, into the URL as well.
    const options = {
      path: `${prefix}${call.path}?${encodeQuery(call.query ?? {})}`,
      method: call.method,
      headers: { ...call.headers },
      statusCodes: okStatus,
      isStream: mode.stream,
      abortSignal: mode.signal,
      options: { _query: {}, _body: call.body ?? {} },
      ...(call.tar === undefined ? {} : { file: call.tar }),
    };
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const modem = this.#docker.modem as {
      dial(options: object, done: (error: unknown, result: unknown) => void): void;
    };
    modem.dial(options, (error, result) => {
      if (error === null || error === undefined) resolve(result);
      else reject(error);
    });
    return promise;
  }

  #translate(call: EngineCall, error: unknown, caller: AbortSignal, within: AbortSignal): unknown {
    if (error instanceof RuntimeError) return error;
    if (caller.aborted) return caller.reason;
    if (within.aborted || isAbort(error)) {
      return new RuntimeError(
        "Timeout",
        `${call.op}: the engine did not answer within ${(call.timeoutMs ?? 10_000) / 1000} s`,
        { cause: error },
      );
    }
    const refusal = refusalOf(call.op, error);
    if (refusal !== undefined) return engineError(refusal, error);
    if (isTransportError(error)) {
      this.renegotiate();
      return unavailable(call.op, this.socketPath, error);
    }
    return new RuntimeError("Internal", `${call.op}: ${String(error)}`, { cause: error });
  }
}

function laneOf(call: EngineCall): Lane {
  return call.lane ?? (call.method === "GET" ? "read" : "write");
}

function isConnectionLost(error: unknown): boolean {
  if (!(error instanceof RuntimeError) || error.failure !== "Unavailable") return false;
  const { cause } = error;
  return cause instanceof Error && "code" in cause && cause.code === "ECONNRESET";
}
