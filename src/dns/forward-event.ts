/** What happens on the way outside, one by one. */
export type ForwardEvent =
  /** A question went upstream. */
  | "forwarded"
  /** A reply was at hand: with records, or that there are none. */
  | "cacheSuccess"
  | "cacheDenial"
  | "cacheMiss"
  /** Too many were under way. */
  | "rejected"
  /** A datagram pretended to be an answer. */
  | "stray"
  | "probeFailed";
