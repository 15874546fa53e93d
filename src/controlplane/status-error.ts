import { RemoraError } from "../lib/errors.ts";
import type { FieldError, JsonObject } from "./types.ts";

export interface StatusDetails {
  readonly name?: string;
  readonly group?: string;
  readonly kind?: string;
  readonly uid?: string;
  readonly causes?: readonly {
    readonly reason: string;
    readonly message: string;
    readonly field?: string;
  }[];
  readonly retryAfterSeconds?: number;
}

/** A refusal that is sent to the client as a `Status` object (meta/v1). */
export class StatusError extends RemoraError {
  readonly code = "REMORA_STATUS";
  readonly status: number;
  readonly reason: string;
  readonly details: StatusDetails | undefined;

  constructor(status: number, reason: string, message: string, details?: StatusDetails) {
    super(message);
    this.status = status;
    this.reason = reason;
    this.details = details;
  }

  /** The body to send. */
  toStatus(): JsonObject {
    return {
      kind: "Status",
      apiVersion: "v1",
      metadata: {},
      status: "Failure",
      message: this.message,
      reason: this.reason,
      ...(this.details === undefined ? {} : { details: this.details }),
      code: this.status,
    };
  }
}

interface Target {
  readonly plural: string;
  readonly kind: string;
  readonly group: string;
}

/** `pods` or `deployments.apps`, as messages name a resource. */
export function qualifiedResource(target: {
  readonly plural: string;
  readonly group: string;
}): string {
  return target.group === "" ? target.plural : `${target.plural}.${target.group}`;
}

function withGroup(group: string): { readonly group?: string } {
  return group === "" ? {} : { group };
}

export function notFound(target: Target, name: string): StatusError {
  return new StatusError(404, "NotFound", `${qualifiedResource(target)} "${name}" not found`, {
    name,
    ...withGroup(target.group),
    kind: target.plural,
  });
}

export function alreadyExists(target: Target, name: string): StatusError {
  return new StatusError(
    409,
    "AlreadyExists",
    `${qualifiedResource(target)} "${name}" already exists`,
    {
      name,
      ...withGroup(target.group),
      kind: target.plural,
    },
  );
}

export function conflict(target: Target, name: string, message: string): StatusError {
  return new StatusError(
    409,
    "Conflict",
    `Operation cannot be fulfilled on ${qualifiedResource(target)} "${name}": ${message}`,
    { name, ...withGroup(target.group), kind: target.plural },
  );
}

export function forbidden(target: Target, name: string, message: string): StatusError {
  const subject =
    name === "" ? qualifiedResource(target) : `${qualifiedResource(target)} "${name}"`;
  return new StatusError(403, "Forbidden", `${subject} is forbidden: ${message}`, {
    ...(name === "" ? {} : { name }),
    ...withGroup(target.group),
    kind: target.plural,
  });
}

export function badRequest(message: string): StatusError {
  return new StatusError(400, "BadRequest", message);
}

/** 422 from a list of field errors, message as the API composes it. */
export function invalid(target: Target, name: string, errors: readonly FieldError[]): StatusError {
  const texts = errors.map((error) => `${error.field}: ${error.message}`);
  const joined = texts.length === 1 ? (texts[0] ?? "") : `[${texts.join(", ")}]`;
  const kind = target.group === "" ? target.kind : `${target.kind}.${target.group}`;
  return new StatusError(422, "Invalid", `${kind} "${name}" is invalid: ${joined}`, {
    ...(name === "" ? {} : { name }),
    ...withGroup(target.group),
    kind: target.kind,
    causes: errors.map(({ type, message, field }) => ({ reason: type, message, field })),
  });
}
