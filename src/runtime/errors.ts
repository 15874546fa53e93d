import { RemoraError } from "../lib/errors.ts";

/** Why a runtime call failed, in terms its caller can act on. */
export type RuntimeFailure =
  /** No such container, sandbox or image. */
  | "NotFound"
  /** The name is taken by something that is not ours to adopt. */
  | "AlreadyExists"
  /** Not possible in the present state (for example exec in a stopped container). */
  | "WrongState"
  /** The engine refuses this configuration for good. */
  | "InvalidSpec"
  /** The engine or host lacks the feature. */
  | "Unsupported"
  | "ImageMissing"
  | "ImagePullFailed"
  /** A volume of an image cannot be shown: the image has no such part. */
  | "ImageMountFailed"
  /** The process could not be started (no such file, no permission, unknown user, bad mount, OCI error). */
  | "StartFailed"
  /** The deadline passed; the call may have taken effect. */
  | "Timeout"
  /** The engine does not answer; the call may have taken effect. */
  | "Unavailable"
  | "Internal";

/** Every failure of a ContainerRuntime or ImageService. */
export class RuntimeError extends RemoraError {
  readonly code = "REMORA_RUNTIME";
  readonly failure: RuntimeFailure;
  /** For StartFailed: 126, 127 or 128, as the engine would report it. */
  readonly exitCode: number | undefined;
  /** For ImagePullFailed: who is to blame, as far as the engine's text tells. */
  readonly pullProblem: "notFound" | "auth" | "network" | "registry" | undefined;
  override readonly retryable: boolean;

  constructor(
    failure: RuntimeFailure,
    message: string,
    options?: ErrorOptions & {
      readonly exitCode?: number | undefined;
      readonly pullProblem?: RuntimeError["pullProblem"];
    },
  ) {
    super(message, options);
    this.failure = failure;
    this.exitCode = options?.exitCode;
    this.pullProblem = options?.pullProblem;
    this.retryable = failure === "Timeout" || failure === "Unavailable" || failure === "Internal";
  }
}

/** True when `error` is a RuntimeError of one of these kinds. */
export function isRuntimeFailure(error: unknown, ...failures: readonly RuntimeFailure[]): boolean {
  return error instanceof RuntimeError && failures.includes(error.failure);
}
