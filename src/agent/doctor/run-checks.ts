import { within } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import { type Check, defaultDeadlineMs, type Finding, type Judgement, unknown } from "./check.ts";
import type { Machine } from "./machine.ts";

/** How many look at once: most of the time they wait for programs and answers. */
const atOnce = 4;

/** What a check said, in the words of the report. */
export interface CheckResult {
  readonly id: string;
  readonly title: string;
  readonly group: Check["group"];
  readonly looks: string;
  readonly reference: string;
  /** `unknown`: it should have been judged and could not be. */
  readonly status: "ok" | "warning" | "error" | "skipped" | "unknown";
  /** What was seen; why it was skipped, or could not be judged. */
  readonly seen: string;
  readonly findings: readonly ReportedFinding[];
}

export interface ReportedFinding {
  readonly problem: string;
  readonly level: "warning" | "error";
  readonly text: string;
  readonly cause: string;
  readonly remedy: string;
}

function reported(check: Check, finding: Finding): ReportedFinding {
  const problem = check.problems[finding.problem];
  if (problem === undefined) throw new TypeError(`${check.id} knows no ${finding.problem}`);
  return {
    problem: finding.problem,
    level: problem.level,
    text: finding.text,
    cause: problem.cause,
    remedy: finding.remedy ?? problem.remedy,
  };
}

/** The report's entry of a judgement. Pure. */
export function resultOf(check: Check, judgement: Judgement): CheckResult {
  const { id, title, group, looks, reference } = check;
  const about = { id, title, group, looks, reference };
  if (judgement.kind !== "judged") {
    return { ...about, status: judgement.kind, seen: judgement.why, findings: [] };
  }
  const findings = judgement.findings.map((finding) => reported(check, finding));
  const status = findings.some(({ level }) => level === "error")
    ? "error"
    : findings.length > 0
      ? "warning"
      : "ok";
  return { ...about, status, seen: judgement.seen, findings };
}

async function runCheck(check: Check, machine: Machine, signal: AbortSignal): Promise<CheckResult> {
  const ms = check.deadlineMs ?? defaultDeadlineMs;
  let judgement: Judgement;
  try {
    judgement = await within(signal, ms, async (limited) => {
      // Some calls of the system do not hear signals: a hung mount must not hold up the rest.
      const { promise, reject } = Promise.withResolvers<never>();
      limited.addEventListener("abort", () => reject(asError(limited.reason)), { once: true });
      return Promise.race([check.look(machine, limited), promise]);
    });
  } catch (error) {
    signal.throwIfAborted();
    judgement = unknown(
      isAbort(error) ? `no answer within ${Math.round(ms / 1000)} s` : errorMessage(error),
    );
  }
  return resultOf(check, judgement);
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}

/**
 * Makes all checks, some at once, each with a deadline of its own. One that fails says that it could not judge.
 *
 * @returns In the order of `checks`.
 * @throws the reason of `signal` alone.
 */
export async function runChecks(
  checks: readonly Check[],
  machine: Machine,
  signal: AbortSignal,
): Promise<readonly CheckResult[]> {
  const results = new Map<Check, CheckResult>();
  const waiting = [...checks];
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      results.set(next, await runCheck(next, machine, signal));
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  return checks.flatMap((check) => results.get(check) ?? []);
}
