import type { NodeSnapshot } from "../../../local/types.ts";

/**
 * What the server of the dashboard tells its page, one JSON object per line of `GET /v1/feed`. The first line holds
 * everything that is known; later ones hold what has changed, and come at least every ten seconds.
 */
export interface FeedMessage {
  /** The server's clock, in milliseconds since the epoch: the browser may be on a machine with another time. */
  readonly now: number;
  readonly link: Link;
  /** The members of the snapshot that are not what this page was told before. */
  readonly snapshot?: Partial<NodeSnapshot>;
  /** Points since the last one that this page was told, which comes again: it was not complete. */
  readonly usage?: readonly UsagePoint[];
}

/** Whether the agent answers on its socket. */
export type Link =
  | { readonly state: "waiting" }
  | { readonly state: "live" }
  | {
      readonly state: "away";
      /** When it answered last, or when the first try failed; milliseconds since the epoch. */
      readonly since: number;
      /** Sentences for people, without a full stop. */
      readonly why: string;
      readonly remedy: string;
    };

/** Means over {@link usageStepSeconds}: seconds since the epoch, cores, bytes, bytes, bytes a second in and out. */
export type UsagePoint = readonly [
  time: number,
  cpu: number,
  memory: number,
  disk: number,
  received: number,
  sent: number,
];

/** What one point of the plots stands for. */
export const usageStepSeconds = 5;
/** How far the plots look back. */
export const usageSpanSeconds = 3600;
