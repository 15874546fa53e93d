import type { NodeSnapshot } from "../../local/types.ts";

/** What the parts of the page are drawn from. */
export interface Seen {
  readonly snapshot: NodeSnapshot;
  /** The node's clock, in milliseconds since the epoch. */
  readonly now: number;
  /** What is searched for. */
  readonly words: readonly string[];
}

/** Brings a part of the page up to date. */
export type View = (seen: Seen) => void;
