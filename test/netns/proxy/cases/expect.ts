import assert from "node:assert/strict";

import type { Addresses, PodName } from "../addresses.ts";
import { eventually } from "../world.ts";

/** Who answered, each once. */
export function names(answers: readonly string[]): readonly string[] {
  return [...new Set(answers.map((answer) => answer.split(" ")[0] ?? ""))].toSorted();
}

/** What servers saw as the caller's address, each once. */
export function callers(answers: readonly string[]): readonly string[] {
  return [...new Set(answers.map((answer) => answer.split(" ")[1] ?? answer))].toSorted();
}

/** Each answer came from one of `expected`, and each of them answered. */
export function assertNames(answers: readonly string[], ...expected: readonly PodName[]): void {
  assert.deepEqual(names(answers), expected.toSorted());
}

/** All answers came from `expected`, though not each of them need have answered. */
export function assertAmong(answers: readonly string[], ...expected: readonly PodName[]): void {
  const others = names(answers).filter((name) => !expected.some((one) => one === name));
  assert.deepEqual(others, []);
}

/** The node's own addresses, as servers see them when a source was rewritten. */
export function assertNodeCalled(answers: readonly string[], at: Addresses): void {
  const own = [at.node, at.nodeSecond, at.gateway];
  const others = callers(answers).filter((caller) => !own.includes(caller));
  assert.deepEqual(others, [], "not the node's address");
}

export function assertRefused(answers: readonly string[]): void {
  assert.deepEqual([...new Set(answers)], ["ECONNREFUSED"]);
}

export function assertSilence(answers: readonly string[]): void {
  assert.deepEqual([...new Set(answers)], ["timeout"]);
}

/** Options of a question that is expected to get no answer. */
export const briefly = { timeoutMs: 300 } as const;

/**
 * The kernel limits ICMP errors, so that one datagram may be refused in silence; never answered. What refuses the node
 * itself fails its send.
 */
export async function assertRefusedByICMP(ask: () => Promise<readonly string[]>): Promise<void> {
  await eventually(
    async () => {
      const [answer = ""] = await ask();
      assert.match(answer, /^(timeout|ECONNREFUSED|EPERM)$/);
      return answer !== "timeout";
    },
    "an ICMP error",
    { seconds: 5 },
  );
}
