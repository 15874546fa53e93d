import type { NftContainer, NftElement, NftHook } from "../netfilter/transaction.ts";

/** A chain that somebody wants. Same name, same content: whoever claims it. */
export interface ChainClaim {
  readonly name: string;
  readonly hook?: NftHook;
  readonly rules: readonly string[];
}

/** An element of one of our containers. `shared` elements are wanted by several owners with the same value. */
export interface ElementClaim extends NftElement {
  readonly container: string;
  readonly shared: boolean;
}

/** What one owner (a Service port, or the fixed part) wants in the table. */
export interface Claims {
  readonly chains: readonly ChainClaim[];
  readonly containers: readonly NftContainer[];
  readonly elements: readonly ElementClaim[];
}

export const noClaims: Claims = { chains: [], containers: [], elements: [] };

/** The comparable form of a chain: its hook and the tags of its rules. */
export function chainSignature(hook: NftHook | undefined, tags: readonly string[]): string {
  return `${hookSignature(hook)};${tags.join(",")}`;
}

/** The comparable form of a hook; empty for a chain without one. */
export function hookSignature(hook: NftHook | undefined): string {
  return hook === undefined ? "" : `${hook.type} ${hook.hook} ${hook.priority}`;
}
