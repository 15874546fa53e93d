/** Base of every error Remora throws on purpose. `code` is stable API; `message` is for people. */
export abstract class RemoraError extends Error {
  abstract readonly code: string;
  /** Whether the same call may succeed later without anybody changing anything. */
  readonly retryable: boolean = false;

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** Data from outside did not have the shape we rely on. `path` says where, in JSONPath-like dots. */
export class ParseError extends RemoraError {
  readonly code = "REMORA_PARSE";
  readonly path: string;

  constructor(path: string, expected: string, options?: ErrorOptions) {
    super(`${path}: expected ${expected}`, options);
    this.path = path;
  }
}

/** The machine or the configuration cannot do what was asked; the message ends in the remedy. */
export class SetupError extends RemoraError {
  readonly code = "REMORA_SETUP";
}

/** A child process ended badly. */
export class ExecError extends RemoraError {
  readonly code = "REMORA_EXEC";
  readonly argv: readonly string[];
  readonly exitCode: number | undefined;
  readonly stderr: string;

  constructor(
    argv: readonly string[],
    exitCode: number | undefined,
    stderr: string,
    options?: ErrorOptions,
  ) {
    super(
      `${argv[0] ?? "?"} exited with ${exitCode ?? "no code"}: ${stderr.trim().slice(0, 500)}`,
      options,
    );
    this.argv = argv;
    this.exitCode = exitCode;
    this.stderr = stderr;
  }
}

/** True for cancellation, whoever cancelled and however the platform names it. */
export function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === "AbortError" || error.name === "TimeoutError");
}

/** The `code` of a Node system error (`ENOENT`, `ECONNREFUSED`, ...) or of a RemoraError. */
export function errorCode(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** True for what the operating system refused (`EACCES`, `ENOSPC`, `EISDIR`, ...): the machine's state, not a bug. */
export function isSystemError(error: unknown): boolean {
  return error instanceof Error && "syscall" in error && errorCode(error) !== undefined;
}

/** The text of anything thrown. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
