import type { Readable } from "node:stream";

import { parseGoDuration } from "../../config/go-duration.ts";
import { deadline } from "../../lib/clock.ts";
import { errorMessage, RemoraError } from "../../lib/errors.ts";
import { spawnStreaming } from "../../lib/exec.ts";
import { isRecord, type JsonRecord, optionalString } from "../../lib/guard.ts";
import type { CredentialProvider } from "./credential-provider-config.ts";

/** A credential provider did not give an answer that can be used. Holds nothing that the program wrote to its stdout. */
export class CredentialPluginError extends RemoraError {
  readonly code = "REMORA_CREDENTIAL_PLUGIN";
  override readonly retryable = true;
}

/** What a plug-in is asked (CredentialProviderRequest). */
export interface PluginRequest {
  /** Repository with its registry, without a tag: `registry.io/team/app`. */
  readonly image: string;
  readonly serviceAccountToken?: string;
  readonly serviceAccountAnnotations?: Readonly<Record<string, string>>;
}

/** What it answers (CredentialProviderResponse). */
export interface PluginAnswer {
  /** For what else it is good: this image, its registry, all images. */
  readonly cacheKeyType: "Image" | "Registry" | "Global";
  /** Milliseconds; undefined leaves it to the configuration. */
  readonly cacheMs: number | undefined;
  /** By registry, path included. */
  readonly auth: ReadonlyMap<string, { readonly username: string; readonly password: string }>;
}

export interface PluginRun {
  /** The agent's own: proxies, regions and homes of cloud tools are there. */
  readonly environment: Readonly<Record<string, string>>;
  /** After which the program is killed; default one minute, as with the kubelet. */
  readonly timeoutMs?: number;
}

const minuteMs = 60_000;
const maxAnswerBytes = 1024 * 1024;
const maxComplaintBytes = 1024;
const undecodable = "error decoding credential provider plugin response from stdout";

/** Collects what a stream says, at most so much of it. */
class Capture {
  readonly #chunks: Buffer[] = [];
  #length = 0;
  overflowed = false;

  constructor(stream: Readable, maxBytes: number, onOverflow: () => void) {
    stream.on("error", () => undefined);
    stream.on("data", (chunk: Buffer) => {
      this.#length += chunk.length;
      if (this.#length <= maxBytes) this.#chunks.push(chunk);
      else if (!this.overflowed) {
        this.overflowed = true;
        onOverflow();
      }
    });
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString("utf8");
  }
}

/**
 * Runs the program with `input` as its stdin.
 *
 * @returns Its stdout.
 * @throws {CredentialPluginError} when it cannot be started, ends badly or says too much; the signal's reason when that
 *   fires: the program is dead by then, and what it has started cannot keep anybody waiting.
 */
async function runProgram(
  provider: CredentialProvider,
  input: string,
  environment: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<string> {
  signal.throwIfAborted();
  const env = { ...environment, ...provider.env };
  const child = spawnStreaming([provider.program, ...provider.args], { signal, env });
  // One that does not listen to SIGTERM is stopped all the same.
  const kill = (): void => void child.kill("SIGKILL");
  const stdout = new Capture(child.stdout, maxAnswerBytes, kill);
  const stderr = new Capture(child.stderr, maxComplaintBytes, () => undefined);
  const ended = Promise.withResolvers<void>();
  let failure: Error | undefined;
  child.on("error", (error) => {
    failure = error;
    // Without a process there is no end to wait for.
    if (child.pid === undefined) ended.resolve();
  });
  child.on("close", () => ended.resolve());
  const onAbort = (): void => {
    kill();
    ended.resolve();
  };
  signal.addEventListener("abort", onAbort, { once: true });
  child.stdin.end(input);
  try {
    await ended.promise;
  } finally {
    signal.removeEventListener("abort", onAbort);
    child.stdout.destroy();
    child.stderr.destroy();
  }
  signal.throwIfAborted();
  if (stdout.overflowed) throw new CredentialPluginError(undecodable);
  if (child.exitCode === 0) return stdout.text();
  const how = failure?.message ?? `exit status ${child.exitCode ?? child.signalCode ?? "unknown"}`;
  throw new CredentialPluginError(`${how}: ${stderr.text().trim()}`);
}

function undecodableUnless(condition: boolean): asserts condition {
  if (!condition) throw new CredentialPluginError(undecodable);
}

/** A field that is null counts as one that is not there. */
function given(record: JsonRecord, known: readonly string[]): JsonRecord {
  const present = Object.entries(record).filter(([, value]) => value !== null);
  undecodableUnless(present.every(([field]) => known.includes(field)));
  return Object.fromEntries(present);
}

function authOf(value: unknown): PluginAnswer["auth"] {
  if (value === undefined) return new Map();
  undecodableUnless(isRecord(value));
  return new Map(
    Object.entries(value).map(([registry, entry]) => {
      undecodableUnless(isRecord(entry));
      const { password = "", username = "" } = given(entry, ["username", "password"]);
      undecodableUnless(typeof username === "string" && typeof password === "string");
      return [registry, { username, password }];
    }),
  );
}

/**
 * Reads an answer. What is in it is repeated nowhere: it holds credentials.
 *
 * @throws {CredentialPluginError}
 */
export function parsePluginAnswer(text: string, apiVersion: string): PluginAnswer {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new CredentialPluginError(undecodable);
  }
  undecodableUnless(isRecord(value));
  const actual = optionalString(value["apiVersion"]) ?? "";
  if (actual !== apiVersion) {
    throw new CredentialPluginError(
      `apiVersion from credential plugin response did not match expected apiVersion:${apiVersion}, actual apiVersion:${actual.slice(0, 100)}`,
    );
  }
  const known = ["apiVersion", "kind", "cacheKeyType", "cacheDuration", "auth"];
  const { auth, cacheDuration, cacheKeyType, kind } = given(value, known);
  undecodableUnless(kind === "CredentialProviderResponse");
  if (cacheKeyType !== "Image" && cacheKeyType !== "Registry" && cacheKeyType !== "Global") {
    throw new CredentialPluginError(
      "credential provider plugin did not return a valid cacheKeyType: Image, Registry or Global",
    );
  }
  undecodableUnless(cacheDuration === undefined || typeof cacheDuration === "string");
  const cacheMs = cacheDuration === undefined ? undefined : parseGoDuration(cacheDuration);
  undecodableUnless(cacheDuration === undefined || cacheMs !== undefined);
  return { cacheKeyType, cacheMs, auth: authOf(auth) };
}

/**
 * Asks a credential provider for the credentials of one image (credentialprovider.kubelet.k8s.io: JSON on stdin and
 * stdout).
 *
 * @throws {CredentialPluginError} whatever the program does wrong, hanging included; the reason of `signal`.
 */
export async function askCredentialPlugin(
  provider: CredentialProvider,
  request: PluginRequest,
  { environment, timeoutMs = minuteMs }: PluginRun,
  signal: AbortSignal,
): Promise<PluginAnswer> {
  const { apiVersion } = provider;
  const input = JSON.stringify({ kind: "CredentialProviderRequest", apiVersion, ...request });
  const stop = deadline(signal, timeoutMs);
  try {
    return parsePluginAnswer(await runProgram(provider, input, environment, stop), apiVersion);
  } catch (error) {
    signal.throwIfAborted();
    const why = stop.aborted ? `no answer within ${timeoutMs / 1000}s` : errorMessage(error);
    throw new CredentialPluginError(
      `error execing credential provider plugin ${provider.name} for image ${request.image}: ${why}`,
      { cause: error },
    );
  }
}
