import { RemoraError } from "../../lib/errors.ts";

/** A network plug-in refused or failed, or there is none that could be asked. */
export class CniError extends RemoraError {
  readonly code = "REMORA_CNI";
  override readonly retryable = true;
  /** The plug-in's own code (specification 1.1.0, "Error"); undefined when it hung, crashed or was not found. */
  readonly cniCode: number | undefined;

  constructor(
    message: string,
    options: { readonly cniCode?: number; readonly cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.cniCode = options.cniCode;
  }
}

/** A network configuration cannot be used. */
export class CniConfigError extends RemoraError {
  readonly code = "REMORA_CNI_CONFIG";
}
