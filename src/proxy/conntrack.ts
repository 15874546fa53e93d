import type { IPFamily } from "../lib/cidr.ts";
import { ExecError, errorCode } from "../lib/errors.ts";
import { execResult } from "../lib/exec.ts";
import { familyArgs, type FlowEnds, listConntrack, parseFlow } from "../netfilter/conntrack.ts";
import type { Frontend, PlannedPort } from "./plan.ts";
import type { Backend } from "./types.ts";

/** Flows to forget: packets from clients to an address and port. */
export interface StaleFlows {
  readonly family: IPFamily;
  /** Default `udp`. */
  readonly protocol?: "tcp" | "udp";
  readonly vip: string;
  readonly port: number;
  /**
   * Who answers; the destination itself for flows that were never translated. Undefined: whoever does, because nobody
   * may.
   */
  readonly from: Backend | undefined;
}

/** Where datagrams are sent to; an empty address is a node port, on every address of the node. */
export type FlowTarget = Pick<Frontend, "ip" | "port">;

/** Whether new flows to a frontend go to some backend. */
export function forwards({ verdict }: Pick<Frontend, "verdict">): boolean {
  return verdict !== "reject" && verdict !== "drop";
}

/** A frontend of which UDP flows may be wrong. */
export interface TouchedFrontend extends FlowTarget {
  /** Backends that its flows may have gone to, and may no more. */
  readonly lost: readonly Backend[];
  /** It did not forward before: flows of then are on their way to its own address. */
  readonly fresh: boolean;
}

/**
 * Frontends of which a change of their port may have made UDP flows wrong: a client that keeps sending from one port
 * keeps sending to where its first datagram went, whatever the rules say by now. Other protocols have none: their
 * connections end by themselves.
 */
export function touchedFrontends(
  before: PlannedPort | undefined,
  after: PlannedPort | undefined,
): readonly TouchedFrontend[] {
  if ((before ?? after)?.protocol !== "udp") return [];
  const kept = new Set(after?.serving.map(nameOf));
  const all = before?.serving ?? [];
  const lost = all.filter((backend) => !kept.has(nameOf(backend)));
  const then = new Map(before?.frontends.map((frontend) => [nameOf(frontend), forwards(frontend)]));
  const now = new Set(after?.frontends.map(nameOf));
  const gone = (before?.frontends ?? []).filter((frontend) => !now.has(nameOf(frontend)));
  const touched = gone.map(({ ip, port }) => ({ ip, port, lost: all, fresh: false }));
  for (const frontend of after?.frontends ?? []) {
    const { ip, port } = frontend;
    const did = then.get(nameOf(frontend)) ?? false;
    const does = forwards(frontend);
    if (did === does && lost.length === 0) continue;
    touched.push({ ip, port, lost: did && !does ? all : lost, fresh: does && !did });
  }
  return touched;
}

function nameOf({ ip, port }: Backend): string {
  return `${ip} ${port}`;
}

/** Which flows are listed. */
export interface FlowSelection {
  readonly family: IPFamily;
  /** Default `udp`. */
  readonly protocol?: "tcp" | "udp";
  /** Of a connection; default any. */
  readonly state?: "SYN_SENT";
}

function selectionArgs({ family, protocol = "udp", state }: FlowSelection): readonly string[] {
  const ofState = state === undefined ? [] : ["--state", state];
  return ["-p", protocol, ...familyArgs(family), ...ofState];
}

/** @returns False when there is no `conntrack` on this machine. @throws as {@link listConntrack}. */
export async function listFlows(
  selection: FlowSelection,
  onFlow: (flow: FlowEnds) => void,
  signal: AbortSignal,
): Promise<boolean> {
  const onLine = (line: string): void => {
    const flow = parseFlow(line);
    if (flow !== undefined) onFlow(flow);
  };
  try {
    await listConntrack(selectionArgs(selection), onLine, signal);
    return true;
  } catch (error) {
    if (error instanceof ExecError && error.exitCode === 127) return false;
    throw error;
  }
}

/** The kernel's table of flows, by a program. */
export interface FlowTable {
  readonly list: typeof listFlows;
  readonly delete: typeof deleteFlows;
}

function deletion({ vip, port, from, ...selection }: StaleFlows): readonly string[] {
  const answers =
    from === undefined ? [] : ["--reply-src", from.ip, "--reply-port-src", String(from.port)];
  return [
    "-D",
    ...selectionArgs(selection),
    "--orig-dst",
    vip,
    "--dport",
    String(port),
    ...answers,
  ];
}

/**
 * Deletes flows with the `conntrack` tool: of one kind by one run, of more by a script for one run, because each looks
 * through the kernel's table and only the start of a program can be saved. Versions before 1.4.7 take no scripts.
 *
 * @returns How many there were; undefined when there is no such tool.
 * @throws `AbortError`.
 */
export async function deleteFlows(
  flows: readonly StaleFlows[],
  signal: AbortSignal,
): Promise<number | undefined> {
  const commands = flows.map(deletion);
  try {
    if (commands.length > 1) {
      const script = commands.map((words) => `${words.join(" ")}\n`).join("");
      const argv = ["conntrack", "-R", "-"] as const;
      const { exitCode, stdout } = await execResult(argv, { stdin: script, signal });
      // 2: it does not know the option. 1 means as below.
      if (exitCode !== 2) return countFlows(stdout);
    }
    let deleted = 0;
    for (const words of commands) {
      // Exit code 1 means that there was no such flow.
      deleted += countFlows((await execResult(["conntrack", ...words], { signal })).stdout);
    }
    return deleted;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** The tool prints a line for each flow that it deleted. */
function countFlows(stdout: string): number {
  return stdout.split("\n").filter((line) => parseFlow(line) !== undefined).length;
}
