import { RemoraError } from "../lib/errors.ts";

/** The API server answered with a non-2xx `Status` (meta/v1). */
export class ApiError extends RemoraError {
  readonly code = "REMORA_API";
  /** HTTP status, for example 404. */
  readonly status: number;
  /** `metav1.StatusReason`, for example `NotFound`; empty when the answer was not a Status object. */
  readonly reason: string;
  /** From `details.retryAfterSeconds` or the Retry-After header. */
  readonly retryAfterSeconds: number | undefined;
  override readonly retryable: boolean;

  constructor(
    status: number,
    reason: string,
    message: string,
    options?: ErrorOptions & { readonly retryAfterSeconds?: number | undefined },
  ) {
    super(message, options);
    this.status = status;
    this.reason = reason;
    this.retryAfterSeconds = options?.retryAfterSeconds;
    this.retryable = status === 429 || status >= 500;
  }
}

/** No answer came: connection refused, reset, TLS failure or deadline. Always retryable; a write may have happened. */
export class ApiUnavailableError extends RemoraError {
  readonly code = "REMORA_API_UNAVAILABLE";
  override readonly retryable = true;
}

export function isNotFound(error: unknown): boolean {
  return error instanceof ApiError && error.status === 404;
}

/** 409 with reason Conflict: the object changed since it was read. */
export function isConflict(error: unknown): boolean {
  return error instanceof ApiError && error.status === 409 && error.reason === "Conflict";
}

/** 409 with reason AlreadyExists. */
export function isAlreadyExists(error: unknown): boolean {
  return error instanceof ApiError && error.status === 409 && error.reason === "AlreadyExists";
}

export function isForbidden(error: unknown): boolean {
  return error instanceof ApiError && error.status === 403;
}

/** 410: the watch or continue token is older than what the server keeps; list again. */
export function isExpired(error: unknown): boolean {
  return error instanceof ApiError && (error.status === 410 || error.reason === "Expired");
}
