import { errorCode, errorMessage } from "../../lib/errors.ts";
import { isRecord, optionalNumber, optionalString } from "../../lib/guard.ts";
import { RuntimeError } from "../errors.ts";

/** What the engine said no to. */
export interface EngineRefusal {
  /** Short name of the operation, for messages: `start container`. */
  readonly op: string;
  readonly status: number;
  readonly message: string;
}

/** Engine trouble that a start error can hide: the container is innocent. */
const engineTrouble =
  /connection error|connection refused|transport is closing|context deadline exceeded|containerd.*(unavailable|not running)|no space left on device|resource temporarily unavailable|too many open files/i;

/**
 * Exit code as Docker would report it for a start error's text: 127 not found, 126 not executable, 128 anything else.
 */
export function startExitCode(message: string): 126 | 127 | 128 {
  if (/executable file not found|no such file or directory|not a directory/i.test(message)) {
    return 127;
  }
  if (/permission denied|is a directory|exec format error/i.test(message)) return 126;
  return 128;
}

/** The classification of an engine's refusal. */
export function engineError(refusal: EngineRefusal, cause?: unknown): RuntimeError {
  const { op, status, message } = refusal;
  const text = `${op}: ${message}`;
  const options = cause === undefined ? {} : { cause };
  const starting = op === "start container";
  if (starting && (status === 400 || status >= 500)) {
    if (engineTrouble.test(message)) return new RuntimeError("Internal", text, options);
    return new RuntimeError("StartFailed", message, {
      ...options,
      exitCode: startExitCode(message),
    });
  }
  // runc asks the kernel, which on cgroup v1 refuses a limit below what is in use.
  if (/unable to set memory limit/i.test(message)) {
    return new RuntimeError("WrongState", text, options);
  }
  switch (status) {
    case 400:
      return new RuntimeError("InvalidSpec", text, options);
    case 403:
    case 501:
      return new RuntimeError("Unsupported", text, options);
    case 404: {
      const image = /no such image|reference does not exist|manifest unknown/i.test(message);
      return new RuntimeError(image ? "ImageMissing" : "NotFound", text, options);
    }
    case 409: {
      const taken = /already in use by/i.test(message);
      return new RuntimeError(taken ? "AlreadyExists" : "WrongState", text, options);
    }
    default:
      return new RuntimeError("Internal", `${text} (HTTP ${status})`, options);
  }
}

/** The status and message of an error the HTTP client threw for a response; undefined for transport errors. */
export function refusalOf(op: string, error: unknown): EngineRefusal | undefined {
  if (!isRecord(error)) return undefined;
  const status = optionalNumber(error["statusCode"]);
  if (status === undefined) return undefined;
  const body = isRecord(error["json"]) ? optionalString(error["json"]["message"]) : undefined;
  const text = optionalString(error["message"]) ?? "";
  // The client library prefixes what it read: "(HTTP code 500) server error - text ".
  const message = body ?? text.replace(/^\(HTTP code \d+\) .*? - /s, "").trim();
  return { op, status, message };
}

const transportCodes = new Set([
  "ECONNREFUSED",
  "ENOENT",
  "EACCES",
  "ECONNRESET",
  "EPIPE",
  "ECONNABORTED",
  "ETIMEDOUT",
  "ERR_STREAM_PREMATURE_CLOSE",
]);

/** True when the engine could not be reached or hung up. */
export function isTransportError(error: unknown): boolean {
  const code = errorCode(error);
  return code !== undefined && transportCodes.has(code);
}

/** The error for an engine that does not answer, with the remedy. */
export function unavailable(op: string, socketPath: string, cause: unknown): RuntimeError {
  const code = errorCode(cause) ?? "";
  const reasons: Readonly<Record<string, string>> = {
    ENOENT: `there is no socket at ${socketPath}: install and start Docker Engine`,
    ECONNREFUSED: `nothing answers on ${socketPath}: start Docker Engine (systemctl start docker)`,
    EACCES: `${socketPath} may not be opened: run as root`,
  };
  const reason = reasons[code] ?? `the connection to ${socketPath} broke (${errorMessage(cause)})`;
  return new RuntimeError("Unavailable", `${op}: ${reason}`, { cause });
}
