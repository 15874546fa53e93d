import type { EventSummary } from "../../local/types.ts";
import { make, mark, part, type Row, Rows, say, show } from "./elements.ts";
import { counted, formatSince } from "./model/format.ts";
import { matchesEvent } from "./model/pods.ts";
import type { View } from "./view.ts";

interface EventRow extends EventSummary {
  readonly now: number;
  /** Which of several that are alike. */
  readonly key: string;
}

function createRow(): Row<EventRow> {
  const reason = make("span", { class: "tone" });
  const object = make("span", { class: "object" });
  const age = make("span", { class: "since" });
  const message = make("p");
  return {
    element: make("li", {}, reason, age, object, message),
    update: (event) => {
      say(reason, event.count > 1 ? `${event.reason} ×${event.count}` : event.reason);
      mark(reason, "data-tone", event.type === "Warning" ? "bad" : "idle");
      say(object, event.object);
      say(age, formatSince(event.time, event.now));
      mark(age, "title", event.time);
      say(message, event.message);
    },
  };
}

/** An event that comes again keeps its row. */
function keyed(events: readonly EventSummary[], now: number): readonly EventRow[] {
  const seen = new Map<string, number>();
  return events.map((event) => {
    const text = JSON.stringify([event.object, event.reason, event.message]);
    const before = seen.get(text) ?? 0;
    seen.set(text, before + 1);
    return { ...event, now, key: `${before} ${text}` };
  });
}

/** What the agent has told the cluster, the newest first. */
export function createEvents(onChange: () => void): View {
  const warnings = part("events-warnings", HTMLInputElement);
  const count = part("events-count", HTMLElement);
  const empty = part("events-empty", HTMLElement);
  const list = part("events", HTMLElement);
  const rows = new Rows(list, ({ key }: EventRow) => key, createRow);
  warnings.addEventListener("change", onChange);
  return ({ now, snapshot: { events }, words }) => {
    const shown = keyed(events, now)
      .filter(({ type }) => !warnings.checked || type === "Warning")
      .filter((event) => matchesEvent(event, words))
      .toReversed();
    rows.update(shown);
    say(
      count,
      shown.length === events.length ? "" : `${shown.length} of ${counted(events.length, "event")}`,
    );
    show(list, shown.length > 0);
    show(empty, shown.length === 0);
    say(empty, events.length === 0 ? "No events in the last hour." : "No such events.");
  };
}
