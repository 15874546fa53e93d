import type { NodeSnapshot } from "../../../local/types.ts";
import { formatAge } from "./format.ts";
import { type FeedMessage, type Link, type UsagePoint, usageSpanSeconds } from "./messages.ts";
import { allPods, podTone, type Tone } from "./pods.ts";

/** What the page knows. */
export interface PageState {
  /** Undefined until the agent has told something. */
  readonly snapshot: NodeSnapshot | undefined;
  readonly usage: readonly UsagePoint[];
  readonly link: Link;
  /** Add it to the browser's clock to get the node's, in milliseconds. */
  readonly clockOffset: number;
  /** The browser's clock when something came last. */
  readonly heard: number;
}

export const emptyState: PageState = {
  snapshot: undefined,
  usage: [],
  link: { state: "waiting" },
  clockOffset: 0,
  heard: 0,
};

/** What the page knows after a message that came when the browser's clock showed `now`. */
export function receive(state: PageState, message: FeedMessage, now: number): PageState {
  return {
    snapshot: merged(state.snapshot, message.snapshot),
    usage: continued(state.usage, message.usage ?? []),
    link: message.link,
    clockOffset: message.now - now,
    heard: now,
  };
}

function merged(
  old: NodeSnapshot | undefined,
  changes: Partial<NodeSnapshot> | undefined,
): NodeSnapshot | undefined {
  if (changes === undefined) return old;
  // The first message has all members.
  return old === undefined ? (changes as NodeSnapshot) : { ...old, ...changes };
}

/** Points that come again replace what was known of that time on. */
function continued(old: readonly UsagePoint[], more: readonly UsagePoint[]): readonly UsagePoint[] {
  const [first] = more;
  const last = more.at(-1);
  if (first === undefined || last === undefined) return old;
  const oldest = last[0] - usageSpanSeconds;
  return [...old.filter(([time]) => time > oldest && time < first[0]), ...more];
}

/** How the page gets at its data. */
export type Connection =
  | { readonly state: "connecting" }
  | { readonly state: "open" }
  /** The dashboard does not answer; there is another try at `retryAt` by the browser's clock. */
  | { readonly state: "closed"; readonly retryAt: number }
  /** Another try would get the same answer. */
  | { readonly state: "refused"; readonly why: string };

export interface Notice {
  readonly tone: Tone;
  /** Short, for the corner of the page. */
  readonly label: string;
  /** A sentence, when what is shown is not what is. */
  readonly text: string;
}

/** With a large letter in front and a full stop behind. */
function sentence(text: string): string {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}.`;
}

/** Without a message for so long nobody believes what is shown. The server says something every ten seconds. */
const quietMs = 25_000;

/** What the page says about how new its data is, when the browser's clock shows `now`. */
export function noticeOf(state: PageState, connection: Connection, now: number): Notice {
  const { link, snapshot } = state;
  const shown =
    snapshot === undefined
      ? ""
      : ` What you see is ${formatAge(now + state.clockOffset - Date.parse(snapshot.time))} old.`;
  switch (connection.state) {
    case "refused":
      return { tone: "bad", label: "Not connected", text: `${connection.why}${shown}` };
    case "closed": {
      const wait = Math.max(Math.ceil((connection.retryAt - now) / 1000), 0);
      const next = wait === 0 ? "Trying again now." : `Next try in ${wait}s.`;
      return {
        tone: "bad",
        label: "Disconnected",
        text: `remora dashboard does not answer. ${next}${shown}`,
      };
    }
    case "connecting":
      return snapshot === undefined
        ? { tone: "busy", label: "Connecting", text: "" }
        : { tone: "bad", label: "Disconnected", text: `Connecting to remora dashboard.${shown}` };
    case "open":
      break;
  }
  if (link.state === "waiting") return { tone: "busy", label: "Waiting", text: "" };
  if (link.state === "away") {
    const away = formatAge(now + state.clockOffset - link.since);
    return {
      tone: "bad",
      label: "Agent away",
      text: `No word from the agent for ${away}. ${sentence(link.why)} ${sentence(link.remedy)}${shown}`,
    };
  }
  if (now - state.heard > quietMs) {
    return { tone: "bad", label: "Silent", text: `remora dashboard is silent.${shown}` };
  }
  return { tone: "good", label: "Live", text: "" };
}

/** Pods that want a person. */
export function troubledPods(snapshot: NodeSnapshot): number {
  return allPods(snapshot).filter((pod) => podTone(pod) === "bad").length;
}

/** The title of the page, for the tab. */
export function titleOf({ snapshot }: PageState, notice: Notice): string {
  if (snapshot === undefined) return "Remora";
  const troubled = troubledPods(snapshot);
  const mark = notice.tone === "bad" ? "? " : troubled > 0 ? `(${troubled}) ` : "";
  return `${mark}${snapshot.node.name} - Remora`;
}
