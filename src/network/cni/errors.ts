import { RemoraError } from "../../lib/errors.ts";

/** Codes of the CNI specification that something hangs on. */
export const cniCodes = { tryAgainLater: 11, notAvailable: 50, limited: 51 } as const;

/** A network plug-in refused or failed, or there is none that could be asked. */
export class CniError extends RemoraError {
  readonly code = "REMORA_CNI";
  override readonly retryable = true;
  /** What the plug-in said itself; undefined when it hung, crashed or was not found. */
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
