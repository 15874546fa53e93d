import type { StatusFlags } from "../flags.ts";
import { type Answer, askSnapshot, followSnapshots } from "../local/local-client.ts";
import { type AgentPlace, findAgent } from "../local/places.ts";
import type { NodeSnapshot } from "../local/types.ts";
import { type Line, line, paint } from "../status/lines.ts";
import { runLiveView } from "../status/live-view.ts";
import { statusLines, type ViewOptions } from "../status/status-view.ts";
import { openTerminal } from "../status/terminal.ts";
import { terminalOptions } from "../status/terminal-options.ts";
import { plain, wrap } from "../status/text.ts";

/** What the exit codes of `remora status` mean. */
export const statusCodes = { ready: 0, notReady: 1, unknown: 3 } as const;

/** In a file and in a pipe nobody scrolls sideways, and nothing is cut off below. */
const plainColumns = 160;

type Write = (text: string) => void;

const out: Write = (text) => void process.stdout.write(text);

/** What whoever reads the pipe has told of its screen, as watch(1) does. */
function told(value: string | undefined, least: number, otherwise: number): number {
  return /^\d{1,4}$/.test(value ?? "") ? Math.max(Number(value), least) : otherwise;
}

/** How a view is to be made for what stdout is. */
export function viewOptions(
  stream: { readonly isTTY?: boolean; readonly columns?: number; readonly rows?: number },
  env: Readonly<Record<string, string | undefined>>,
  now: number,
): ViewOptions {
  const { glyphs, interactive } = terminalOptions(stream, env);
  return {
    // The last column stays empty: some terminals wrap there.
    columns: interactive
      ? Math.max((stream.columns || 80) - 1, 20)
      : told(env["COLUMNS"], 20, plainColumns),
    rows: interactive ? Math.max((stream.rows || 24) - 1, 10) : told(env["LINES"], 10, Infinity),
    now,
    glyphs,
  };
}

/** Whether somebody sits at both ends of this process. */
export function isLive(): boolean {
  return terminalOptions(process.stdout, process.env).interactive && process.stdin.isTTY;
}

/** The exit code that an answer means. */
export function codeOf(answer: Answer): number {
  if (answer.kind === "none") return statusCodes.unknown;
  return answer.snapshot.node.ready ? statusCodes.ready : statusCodes.notReady;
}

/** Says why there is nothing to show, and what to do about it. */
export function tellWhy({ remedy, why }: Extract<Answer, { kind: "none" }>): void {
  const { columns } = viewOptions(process.stderr, process.env, 0);
  const lines = [...wrap(`remora: ${why}`, columns, 9, ""), ...wrap(remedy, columns, 9, "")];
  process.stderr.write(`${lines.join("\n")}\n`);
}

/**
 * `remora status`: how this machine's node is.
 *
 * @returns The exit code: 0 the node is Ready, 1 it is not, 3 no agent tells.
 */
export async function status(flags: StatusFlags, signal: AbortSignal): Promise<number> {
  const place = await findAgent(flags.stateDir);
  if (flags.watch !== true) {
    const answer = await askSnapshot(place, signal);
    if (answer.kind === "none") tellWhy(answer);
    else if (flags.json === true) out(`${JSON.stringify(answer.snapshot, undefined, 2)}\n`);
    else out(text(answer.snapshot));
    return codeOf(answer);
  }
  const answers = followSnapshots(place, signal);
  if (flags.json === true) return eachAsJson(answers);
  if (!isLive()) return eachAsText(answers);
  const last = await live(place, signal);
  if (last?.kind === "none") tellWhy(last);
  return last === undefined ? statusCodes.unknown : codeOf(last);
}

function text(snapshot: NodeSnapshot): string {
  const options = viewOptions(process.stdout, process.env, Date.now());
  const { paint: how } = terminalOptions(process.stdout, process.env);
  return statusLines(snapshot, options)
    .map((each) => `${paint(each, how)}\n`)
    .join("");
}

async function eachAsJson(answers: AsyncIterable<Answer>): Promise<number> {
  let code: number = statusCodes.unknown;
  for await (const answer of answers) {
    if (answer.kind === "none") tellWhy(answer);
    else out(`${JSON.stringify(answer.snapshot)}\n`);
    code = codeOf(answer);
  }
  return code;
}

/** What changes besides figures: times and loads are another in each snapshot. */
function gist({ node, pods, pulls }: NodeSnapshot): string {
  return JSON.stringify([
    node.ready,
    node.message,
    node.apiServer.reachable,
    pods.map(({ name, namespace, restarts, status: word, why }) => [
      namespace,
      name,
      word,
      restarts,
      // Waits grow with each try.
      why.replaceAll(/\d+/g, "#"),
    ]),
    pulls.map(({ image }) => image),
  ]);
}

/** Without a terminal a log is written: a status whenever something is another than it was. */
async function eachAsText(answers: AsyncIterable<Answer>): Promise<number> {
  let code: number = statusCodes.unknown;
  let told: string | undefined;
  for await (const answer of answers) {
    code = codeOf(answer);
    if (answer.kind === "none") tellWhy(answer);
    else if (gist(answer.snapshot) !== told) {
      out(`${told === undefined ? "" : "\n"}${answer.snapshot.time}\n${text(answer.snapshot)}`);
      told = gist(answer.snapshot);
    }
  }
  return code;
}

/** What is shown before the first answer. */
export function waitingLines({ socket }: AgentPlace): readonly Line[] {
  return [line(`asking the agent at ${plain(socket)}`, "dim"), [], line("q quits", "dim")];
}

function live(place: AgentPlace, signal: AbortSignal): Promise<Answer | undefined> {
  const view = (snapshot: NodeSnapshot | undefined): readonly Line[] => {
    if (snapshot === undefined) return waitingLines(place);
    const options = viewOptions(process.stdout, process.env, Date.now());
    const rows = Math.max(options.rows - 2, 5);
    return [...statusLines(snapshot, { ...options, rows }), [], line("q quits", "dim")];
  };
  return runLiveView(
    {
      terminal: openTerminal(process.stdin, process.stdout, process.env),
      follow: (over) => followSnapshots(place, over),
      view,
      press: (key) => !["q", "ctrl-c", "ctrl-d", "escape"].includes(key),
    },
    signal,
  );
}
