import { createInterface } from "node:readline";

import type { IPFamily } from "../lib/cidr.ts";
import { ExecError } from "../lib/errors.ts";
import { spawnStreaming, whenClosed } from "../lib/exec.ts";

/** A flow as conntrack knows it, as far as it says where it goes. */
export interface FlowEnds {
  /** What the client sent to. */
  readonly destination: string;
  readonly port: number;
  /** Who answers: the backend, or the destination itself when nothing was translated. */
  readonly from: string;
  readonly fromPort: number;
}

// Each line has two tuples, the original one and that of the answers.
const tuples =
  /^(?:tcp|udp)\s.*? src=\S+ dst=(\S+) sport=\d+ dport=(\d+)\s.*?src=(\S+) dst=\S+ sport=(\d+) dport=\d+/;

/** Reads one line of `conntrack -L` about UDP or TCP; undefined for anything else. */
export function parseFlow(line: string): FlowEnds | undefined {
  const [, to, port, from, fromPort] = tuples.exec(line) ?? [];
  if (to === undefined || from === undefined) return undefined;
  // The tool prints IPv6 addresses as inet_ntop does, which is their canonical form; the cheap way for large tables.
  return { destination: to, port: Number(port), from, fromPort: Number(fromPort) };
}

/** Words that choose a family. */
export function familyArgs(family: IPFamily): readonly string[] {
  return ["-f", family === "IPv4" ? "ipv4" : "ipv6"];
}

/**
 * Lists the kernel's flows line by line: there may be a million, and they are never held.
 *
 * @param selection Options of `conntrack -L` that say which.
 * @throws {ExecError} the tool failed, for example without root; exit code 127: there is none. `AbortError`.
 */
export async function listConntrack(
  selection: readonly string[],
  onLine: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const argv = ["conntrack", "-L", ...selection] as const;
  // setpriv, which makes it end with us, says 127 when it finds no such program.
  const child = spawnStreaming(argv, { signal, dieWithParent: true });
  const closed = whenClosed(child);
  let stderr = "";
  child.stderr.on("data", (chunk: Buffer) => (stderr = chunk.toString("utf8").slice(-500)));
  for await (const line of createInterface({ input: child.stdout })) onLine(line);
  await closed;
  signal.throwIfAborted();
  const { exitCode } = child;
  if (exitCode !== 0) throw new ExecError(argv, exitCode ?? undefined, stderr);
}
