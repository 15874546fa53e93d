import { once } from "node:events";
import { createInterface } from "node:readline";

import type { IPFamily } from "../lib/cidr.ts";
import { ExecError, errorCode } from "../lib/errors.ts";
import { execResult, spawnStreaming } from "../lib/exec.ts";
import type { Frontend, PlannedPort } from "./plan.ts";

/** Flows to forget: datagrams from a client to a frontend that conntrack still sends to `from`. */
export interface StaleFlows {
  readonly family: IPFamily;
  /** Undefined for a node port: any address of the node. */
  readonly vip: string | undefined;
  readonly port: number;
  /** Where the answers come from; the frontend's own address for flows that were never translated. */
  readonly from: string;
}

function forwards(frontend: Frontend): boolean {
  return frontend.verdict !== "reject" && frontend.verdict !== "drop";
}

/** Where flows may be. An endpoint that was not chosen any more but still serves keeps its flows. */
function backends(plan: PlannedPort | undefined): ReadonlySet<string> {
  return new Set(plan?.serving.map(({ ip }) => ip));
}

/**
 * The UDP flows that a change of one port makes wrong. Without their removal a client that keeps sending from one port
 * keeps sending to where its first datagram went. TCP flows are left alone: they end by themselves.
 */
export function staleFlows(
  family: IPFamily,
  before: PlannedPort | undefined,
  after: PlannedPort | undefined,
): readonly StaleFlows[] {
  const protocol = before?.protocol ?? after?.protocol;
  if (protocol !== "udp") return [];
  return [...toGoneBackends(family, before, after), ...neverTranslated(family, before, after)];
}

function sameFrontend(plan: PlannedPort | undefined, { ip, port }: Frontend): Frontend | undefined {
  return plan?.frontends.find((other) => other.ip === ip && other.port === port);
}

function flowsOf(family: IPFamily, { ip, port }: Frontend, from: string): StaleFlows {
  return { family, vip: ip === "" ? undefined : ip, port, from };
}

/** A frontend that is gone has no right flows; one that stays has wrong ones to backends that are gone. */
function toGoneBackends(
  family: IPFamily,
  before: PlannedPort | undefined,
  after: PlannedPort | undefined,
): readonly StaleFlows[] {
  const kept = backends(after);
  return (before?.frontends ?? [])
    .filter(forwards)
    .flatMap((frontend) =>
      [...backends(before)]
        .filter((from) => sameFrontend(after, frontend) === undefined || !kept.has(from))
        .map((from) => flowsOf(family, frontend, from)),
    );
}

/** Datagrams that came before there was a backend were tracked with the address they were sent to. */
function neverTranslated(
  family: IPFamily,
  before: PlannedPort | undefined,
  after: PlannedPort | undefined,
): readonly StaleFlows[] {
  return (after?.frontends ?? [])
    .filter((frontend) => frontend.ip !== "" && forwards(frontend))
    .filter((frontend) => {
      const was = sameFrontend(before, frontend);
      return was === undefined || !forwards(was);
    })
    .map((frontend) => flowsOf(family, frontend, frontend.ip));
}

/** A UDP flow as conntrack knows it, as far as it says where it goes. */
export interface UDPFlow {
  /** What the client sent to. */
  readonly destination: string;
  readonly port: number;
  /** Who answers: the backend, or the destination itself when nothing was translated. */
  readonly from: string;
  readonly fromPort: number;
}

// Each line has two tuples, the original one and that of the answers.
const tuples =
  /^udp\s.*? src=\S+ dst=(\S+) sport=\d+ dport=(\d+)\s.*?src=(\S+) dst=\S+ sport=(\d+) dport=\d+/;

/** Reads one line of `conntrack -L -p udp`; undefined for anything else. */
export function parseFlow(line: string): UDPFlow | undefined {
  const [, to, port, from, fromPort] = tuples.exec(line) ?? [];
  if (to === undefined || from === undefined) return undefined;
  // The tool prints IPv6 addresses as inet_ntop does, which is their canonical form; the cheap way for large tables.
  return { destination: to, port: Number(port), from, fromPort: Number(fromPort) };
}

/**
 * Lists the UDP flows of one family line by line: the table may have a million entries and is never held.
 *
 * Without the tool there are none.
 *
 * @throws {ExecError} the tool failed; `AbortError`.
 */
export async function listUDPFlows(
  family: IPFamily,
  onFlow: (flow: UDPFlow) => void,
  signal: AbortSignal,
): Promise<void> {
  const argv = ["conntrack", "-L", "-p", "udp", "-f", family === "IPv4" ? "ipv4" : "ipv6"] as const;
  const child = spawnStreaming(argv, { signal, dieWithParent: true });
  const closed = once(child, "close");
  let stderr = "";
  child.stderr.on("data", (chunk: Buffer) => (stderr = chunk.toString("utf8").slice(-500)));
  for await (const line of createInterface({ input: child.stdout })) {
    const flow = parseFlow(line);
    if (flow !== undefined) onFlow(flow);
  }
  await closed;
  signal.throwIfAborted();
  const { exitCode } = child;
  // 127: setpriv found no such program.
  if (exitCode !== 0 && exitCode !== 127) throw new ExecError(argv, exitCode ?? undefined, stderr);
}

/**
 * Deletes flows with the `conntrack` tool. Without the tool nothing happens.
 *
 * @returns How many there were; undefined when there is no such tool.
 */
export async function deleteFlows(
  flows: readonly StaleFlows[],
  signal: AbortSignal,
): Promise<number | undefined> {
  let deleted = 0;
  for (const { family, vip, port, from } of flows) {
    const argv: [string, ...string[]] = [
      "conntrack",
      "-D",
      "-p",
      "udp",
      "-f",
      family === "IPv4" ? "ipv4" : "ipv6",
      ...(vip === undefined ? [] : ["--orig-dst", vip]),
      "--dport",
      String(port),
      "--reply-src",
      from,
    ];
    try {
      // Exit code 1 means that there was no such flow. The count stands on stderr, one flow per line on stdout.
      const { stderr } = await execResult(argv, { signal });
      deleted += Number(/(\d+) flow entries have been deleted/.exec(stderr)?.[1] ?? 0);
    } catch (error) {
      if (errorCode(error) === "ENOENT") return undefined;
      throw error;
    }
  }
  return deleted;
}
