import { setImmediate as nextTurn } from "node:timers/promises";

import { type ExecResult, execResult } from "../lib/exec.ts";
import { classifyNftFailure, explainMissingProgram, NftError } from "./errors.ts";
import { type TableListing, tableListingSteps } from "./read-back.ts";
import type { NftTable } from "./transaction.ts";

/** Steps of reading a listing between turns of the event loop. */
const stepsPerTurn = 10;

async function nft(
  args: readonly string[],
  stdin: string | Uint8Array,
  signal: AbortSignal,
): Promise<ExecResult> {
  try {
    return await execResult(["nft", ...args], { stdin, signal });
  } catch (error) {
    throw explainMissingProgram(error, "nft", "nftables");
  }
}

/** For a string Node would take three times its length to write it, megabytes that the process never gives back. */
function longText(text: string): string | Uint8Array {
  return text.length > 64 * 1024 ? Buffer.from(text, "latin1") : text;
}

/**
 * Hands a transaction to the kernel: all of it takes effect at once, or nothing.
 *
 * @throws {NftError} the kernel refused it; {@link SetupError} no nft, no right, no nf_tables; `AbortError`.
 */
export async function applyNft(text: string, signal: AbortSignal): Promise<void> {
  if (text === "") return;
  const result = await nft(["-f", "-"], longText(text), signal);
  if (result.exitCode !== 0) throw classifyNftFailure(result.stderr);
}

/**
 * Asks nft and the kernel whether they would take a transaction, and changes nothing.
 *
 * @throws as {@link applyNft}.
 */
export async function checkNft(text: string, signal: AbortSignal): Promise<void> {
  const result = await nft(["--check", "-f", "-"], text, signal);
  if (result.exitCode !== 0) throw classifyNftFailure(result.stderr);
}

/**
 * What the kernel holds of one table, or undefined when there is no such table.
 *
 * @throws {NftError} the listing failed; {@link ParseError} it could not be understood.
 */
export async function listTable(
  table: NftTable,
  signal: AbortSignal,
): Promise<TableListing | undefined> {
  const result = await nft(["-j", "list", "table", table.family, table.name], "", signal);
  if (result.exitCode !== 0) {
    const failure = classifyNftFailure(result.stderr);
    if (failure instanceof NftError && failure.failure === "missing") return undefined;
    throw failure;
  }
  const steps = tableListingSteps(JSON.parse(result.stdout));
  for (let count = 1; ; count += 1) {
    const { done, value: listing } = steps.next();
    if (done === true) return listing;
    // About a millisecond's work each time.
    if (count % stepsPerTurn === 0) await nextTurn();
  }
}

/** The version of nft, for example `1.0.6`. @throws as {@link applyNft}. */
export async function nftVersion(signal: AbortSignal): Promise<string> {
  const result = await nft(["--version"], "", signal);
  return /v(\d+(?:\.\d+)+)/.exec(result.stdout)?.[1] ?? "unknown";
}
