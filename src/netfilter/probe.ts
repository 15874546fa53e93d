import { isAbort, SetupError } from "../lib/errors.ts";
import { NftError } from "./errors.ts";
import { checkNft, nftVersion } from "./nft.ts";

/**
 * Finds out whether this host's nft and kernel take what the rules need: maps keyed by a concatenation that ends in a
 * random index.
 *
 * @returns The version of nft.
 * @throws {SetupError} with the remedy.
 */
export async function probeNft(signal: AbortSignal): Promise<string> {
  const version = await nftVersion(signal);
  try {
    await checkNft(
      [
        "add table ip remora-probe",
        "add map ip remora-probe m { typeof ip daddr . tcp dport . numgen random mod 2 : ip daddr . tcp dport ; }",
        "add chain ip remora-probe c",
        "add rule ip remora-probe c meta l4proto tcp dnat ip addr . port to ip daddr . tcp dport . numgen random mod 2 map @m",
        "",
      ].join("\n"),
      signal,
    );
  } catch (error) {
    if (isAbort(error) || !(error instanceof NftError)) throw error;
    throw new SetupError(
      `nft ${version} or this kernel cannot do Service rules (${error.message}): nft 1.0.1 and kernel 5.13 or newer are needed`,
      { cause: error },
    );
  }
  return version;
}
