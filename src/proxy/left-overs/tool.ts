import { errorCode, ExecError } from "../../lib/errors.ts";
import { type ExecResult, execResult } from "../../lib/exec.ts";

/** Runs a program that need not be there. @returns Undefined when it is not. @throws `AbortError`. */
export async function runIfThere(
  argv: readonly [string, ...string[]],
  options: { readonly signal: AbortSignal; readonly stdin?: string },
): Promise<ExecResult | undefined> {
  try {
    return await execResult(argv, options);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** As {@link runIfThere}, its output. @throws {ExecError} when it fails; `AbortError`. */
export async function outputIfThere(
  argv: readonly [string, ...string[]],
  options: { readonly signal: AbortSignal; readonly stdin?: string },
): Promise<string | undefined> {
  const result = await runIfThere(argv, options);
  if (result === undefined) return undefined;
  if (result.exitCode !== 0) throw new ExecError(argv, result.exitCode, result.stderr);
  return result.stdout;
}
