import { groups } from "./check.ts";
import type { CheckResult } from "./run-checks.ts";
import type { Site } from "./site.ts";

/** What `remora doctor --json` prints. */
export interface DoctorReport {
  /** Raised when a member changes its meaning; members may be added without. */
  readonly schema: 1;
  /** RFC 3339 in UTC. */
  readonly time: string;
  readonly version: string;
  readonly node: string;
  readonly mode: Site["mode"];
  /** Of the agent; null when none runs. */
  readonly pid: number | null;
  readonly stateDir: string;
  /** Others see less. */
  readonly asRoot: boolean;
  readonly checks: readonly CheckResult[];
  readonly summary: Readonly<Record<CheckResult["status"], number>>;
}

/** @param time RFC 3339. */
export function doctorReport(
  checks: readonly CheckResult[],
  site: Site,
  about: Pick<DoctorReport, "asRoot" | "time" | "version">,
): DoctorReport {
  const count = (status: CheckResult["status"]): number =>
    checks.filter((check) => check.status === status).length;
  return {
    schema: 1,
    time: about.time,
    version: about.version,
    node: site.nodeName,
    mode: site.mode,
    pid: site.pid ?? null,
    stateDir: site.stateDir,
    asRoot: about.asRoot,
    checks,
    summary: {
      ok: count("ok"),
      warning: count("warning"),
      error: count("error"),
      skipped: count("skipped"),
      unknown: count("unknown"),
    },
  };
}

/** 0: nothing is wrong; 1: something does not work; 2: nothing wrong was found, and something could not be judged. */
export function exitCodeOf({ summary }: Pick<DoctorReport, "summary">): 0 | 1 | 2 {
  if (summary.error > 0) return 1;
  return summary.unknown > 0 ? 2 : 0;
}

const marks: Readonly<Record<CheckResult["status"], string>> = {
  ok: "ok",
  warning: "warning",
  error: "ERROR",
  skipped: "skipped",
  unknown: "unknown",
};

const indent = " ".repeat(9);
const width = 110;

/** A paragraph in lines of a terminal, behind a label of eight characters. */
function paragraph(label: string, text: string): readonly string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + word.length >= width - indent.length - label.length) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line].map(
    (one, index) => `${indent}${index === 0 ? label : " ".repeat(label.length)}${one}`,
  );
}

function checkLines(check: CheckResult, all: boolean): readonly string[] {
  const { findings, id, seen, status, title } = check;
  if (status === "ok" || status === "skipped") {
    return all ? [`${marks[status].padEnd(8)} ${title} (${id}): ${seen}`] : [];
  }
  if (status === "unknown") return [`${marks[status].padEnd(8)} ${title} (${id}): ${seen}`];
  return findings.flatMap((finding) => [
    `${marks[finding.level].padEnd(8)} ${finding.text} [${finding.problem}]`,
    ...paragraph("cause:  ", finding.cause),
    // A command stays on one line, so that it can be copied.
    `${indent}remedy: ${finding.remedy}`,
  ]);
}

function plural(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** The last line: all in one sentence. */
function summaryLine({ summary }: DoctorReport): string {
  const { error, ok, skipped, unknown, warning } = summary;
  const parts = [
    ...(error > 0 ? [plural(error, "error")] : []),
    ...(warning > 0 ? [plural(warning, "warning")] : []),
    ...(unknown > 0 ? [`${unknown} could not be judged`] : []),
    `${ok} fine`,
    ...(skipped > 0 ? [`${skipped} do not apply`] : []),
  ];
  return `${plural(error + warning + unknown + ok + skipped, "check")}: ${parts.join(", ")}`;
}

/**
 * The report for people, in the order of groups, worst first in each.
 *
 * @param all Also what is fine, and what does not apply.
 */
export function reportLines(report: DoctorReport, all: boolean): readonly string[] {
  const agent =
    report.pid === null ? "no agent runs" : `agent pid ${report.pid} (remora ${report.mode})`;
  const lines = [`node ${report.node}, ${agent}, ${report.stateDir}`, ""];
  const rank = ["error", "warning", "unknown", "ok", "skipped"];
  for (const group of groups) {
    const checks = report.checks
      .filter((check) => check.group === group)
      .toSorted((a, b) => rank.indexOf(a.status) - rank.indexOf(b.status));
    const told = checks.flatMap((check) => checkLines(check, all));
    if (told.length > 0) lines.push(`${group}:`, ...told, "");
  }
  if (report.summary.unknown > 0 && !report.asRoot) {
    lines.push("use sudo: some things are told to root alone", "");
  }
  return [...lines, summaryLine(report)];
}
