import type { TopFlags } from "../flags.ts";
import { askSnapshot, followSnapshots } from "../local/local-client.ts";
import { findAgent } from "../local/places.ts";
import { paint } from "../status/lines.ts";
import { runLiveView } from "../status/live-view.ts";
import { openTerminal } from "../status/terminal.ts";
import { terminalOptions } from "../status/terminal-options.ts";
import { firstState, pressed, type TopState } from "../status/top-state.ts";
import { topReport, topScreen } from "../status/top-view.ts";
import { codeOf, isLive, statusCodes, tellWhy, viewOptions, waitingLines } from "./status.ts";

/**
 * `remora top`: what this machine's pods use and how they are, live; without a terminal once.
 *
 * @returns The exit code: 0 also when the node is not Ready, 3 when no agent tells.
 */
export async function top(flags: TopFlags, signal: AbortSignal): Promise<number> {
  const place = await findAgent(flags.stateDir);
  let state: TopState = { ...firstState, order: flags.sort };
  const options = (): ReturnType<typeof viewOptions> =>
    viewOptions(process.stdout, process.env, Date.now());
  if (!isLive()) {
    const answer = await askSnapshot(place, signal);
    if (answer.kind === "none") tellWhy(answer);
    else {
      const { paint: how } = terminalOptions(process.stdout, process.env);
      const lines = topReport(answer.snapshot, state, { ...options(), rows: Infinity });
      process.stdout.write(lines.map((each) => `${paint(each, how)}\n`).join(""));
    }
    return codeOf(answer) === statusCodes.unknown ? statusCodes.unknown : 0;
  }
  let page = 1;
  const last = await runLiveView(
    {
      terminal: openTerminal(process.stdin, process.stdout, process.env),
      follow: (over) => followSnapshots(place, over),
      view: (snapshot) => {
        if (snapshot === undefined) return waitingLines(place);
        const screen = topScreen(snapshot, state, options());
        ({ page } = screen);
        return screen.lines;
      },
      press: (key, snapshot) => {
        if (snapshot === undefined) return !["q", "ctrl-c", "ctrl-d"].includes(key);
        const next = pressed(state, key, snapshot, page);
        state = next ?? state;
        return next !== undefined;
      },
    },
    signal,
  );
  if (last?.kind !== "none") return 0;
  tellWhy(last);
  return statusCodes.unknown;
}
