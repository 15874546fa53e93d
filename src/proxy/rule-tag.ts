import { createHash } from "node:crypto";

/** The first characters of a text's SHA-256, in hex. */
export function shortHash(text: string, length: number): string {
  return createHash("sha256").update(text).digest("hex").slice(0, length);
}

/** The comment by which a rule is recognised in a listing: listings of rule bodies are not exact on old nft. */
export function ruleTag(text: string): string {
  return shortHash(text, 8);
}
