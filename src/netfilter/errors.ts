import { RemoraError, SetupError, errorCode } from "../lib/errors.ts";

/**
 * What the kernel disliked about a transaction: `missing` and `exists` mean our picture of the table is wrong and a
 * read-back helps; `busy` means that something still refers to a deleted object.
 */
export type NftFailure = "missing" | "exists" | "busy" | "other";

/** nft refused a transaction or a listing; nothing of the transaction took effect. */
export class NftError extends RemoraError {
  readonly code = "REMORA_NFT";
  override readonly retryable = true;
  readonly failure: NftFailure;

  constructor(failure: NftFailure, stderr: string, options?: ErrorOptions) {
    super(`nft: ${firstErrorLine(stderr)}`, options);
    this.failure = failure;
  }
}

function firstErrorLine(stderr: string): string {
  const lines = stderr.split("\n").filter((line) => line.trim() !== "");
  return (lines.find((line) => line.includes("Error:")) ?? lines[0] ?? "no message").slice(0, 400);
}

/** The error for what nft printed before it ended badly. */
export function classifyNftFailure(stderr: string): NftError | SetupError {
  if (/Operation not permitted|must be root/i.test(stderr)) {
    return new SetupError(
      "nft may not change packet rules: run remora as root (CAP_NET_ADMIN in the host's network namespace)",
    );
  }
  if (/Protocol not supported|cache initialization failed: Invalid argument/.test(stderr)) {
    return new SetupError(
      "the kernel has no nf_tables: load it with `modprobe nf_tables` or use a kernel with CONFIG_NF_TABLES",
    );
  }
  if (/No such file or directory/.test(stderr)) return new NftError("missing", stderr);
  if (/File exists/.test(stderr)) return new NftError("exists", stderr);
  if (/Device or resource busy/.test(stderr)) return new NftError("busy", stderr);
  return new NftError("other", stderr);
}

/** Turns "no such program" into a sentence with the remedy; anything else is returned as it is. */
export function explainMissingProgram(error: unknown, program: string, pkg: string): unknown {
  if (errorCode(error) !== "ENOENT") return error;
  return new SetupError(`${program} is not installed: run \`apt-get install ${pkg}\``, {
    cause: error,
  });
}
