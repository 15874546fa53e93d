import { follow, takeToken } from "./connection.ts";
import { mark, part, say, show } from "./elements.ts";
import { createEvents } from "./events.ts";
import { wordsOf } from "./model/pods.ts";
import {
  type Connection,
  emptyState,
  noticeOf,
  type PageState,
  receive,
  titleOf,
} from "./model/state.ts";
import { createNode, createPulls } from "./node.ts";
import { createPlots } from "./plots.ts";
import { createPodsTable } from "./pods-table.ts";
import { createServices } from "./services.ts";
import type { View } from "./view.ts";

let state: PageState = emptyState;
let connection: Connection = { state: "connecting" };
let scheduled = false;

const search = part("search", HTMLInputElement);
const main = part("main", HTMLElement);
const live = part("live", HTMLElement);
const liveLabel = part("live-label", HTMLElement);
const notice = part("notice", HTMLElement);

function searchFor(text: string): void {
  search.value = search.value === text ? "" : text;
  update();
}

const plots = createPlots();
const views: readonly View[] = [
  createNode(),
  createPulls(),
  createPodsTable(searchFor, update),
  createServices(searchFor, update),
  createEvents(update),
];

/** Brings the page up to date before it is painted next. */
function update(): void {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    paint();
  });
}

function paint(): void {
  const now = Date.now();
  const said = noticeOf(state, connection, now);
  mark(live, "data-tone", said.tone);
  say(liveLabel, said.label);
  say(notice, said.text);
  show(notice, said.text !== "");
  document.title = titleOf(state, said);
  const { snapshot } = state;
  if (snapshot === undefined) return;
  show(main, true);
  main.classList.toggle("old", said.tone === "bad");
  const nodeNow = now + state.clockOffset;
  plots(state, nodeNow);
  const words = wordsOf(search.value);
  for (const view of views) view({ snapshot, now: nodeNow, words });
}

search.addEventListener("input", update);
document.addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement && event.target.type === "search";
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Escape" && typing) {
    search.value = "";
    search.blur();
    update();
  }
});
// The address of another start, put into this tab.
addEventListener("hashchange", () => location.reload());
// Ages grow by themselves.
setInterval(update, 1000);
document.addEventListener("visibilitychange", update);

const token = takeToken();
if (token === undefined) {
  connection = {
    state: "refused",
    why: "Open the whole address that remora dashboard printed: what is behind # in it is the key.",
  };
  update();
} else {
  void follow(token, {
    onMessage: (message) => {
      state = receive(state, message, Date.now());
      update();
    },
    onConnection: (next) => {
      connection = next;
      update();
    },
  });
}
