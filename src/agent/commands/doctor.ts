import { systemClock } from "../../lib/clock.ts";
import { errorMessage, SetupError } from "../../lib/errors.ts";
import { allChecks } from "../doctor/catalogue.ts";
import type { Check } from "../doctor/check.ts";
import { type Machine, machineAt } from "../doctor/machine.ts";
import { type DoctorReport, doctorReport, exitCodeOf, reportLines } from "../doctor/report.ts";
import { runChecks } from "../doctor/run-checks.ts";
import { findSite, type SiteFlags } from "../doctor/site.ts";
import { random } from "../random.ts";
import { remoraVersion } from "../version.ts";

export interface DoctorFlags extends SiteFlags {
  readonly json?: boolean;
  /** Also what is fine. */
  readonly all?: boolean;
  /** Ids of checks. */
  readonly only?: readonly string[];
  /** Print the table of all problems, and look at nothing. */
  readonly list?: boolean;
}

/** @throws {SetupError} naming what there is. */
export function chosenChecks(only: readonly string[] | undefined): readonly Check[] {
  if (only === undefined) return allChecks;
  for (const id of only) {
    if (allChecks.some((check) => check.id === id)) continue;
    throw new SetupError(
      `--only ${id}: there is no such check; there are ${allChecks.map((check) => check.id).join(", ")}`,
    );
  }
  return allChecks.filter(({ id }) => only.includes(id));
}

/** This machine as it is. */
export async function thisMachine(flags: SiteFlags, signal: AbortSignal): Promise<Machine> {
  return machineAt({
    clock: systemClock,
    root: "",
    isRoot: process.getuid?.() === 0,
    random,
    site: await findSite(flags, signal),
  });
}

/** Looks at a machine. */
export async function examine(
  machine: Machine,
  checks: readonly Check[],
  signal: AbortSignal,
): Promise<DoctorReport> {
  return doctorReport(await runChecks(checks, machine, signal), machine.site, {
    time: new Date(machine.clock.now()).toISOString(),
    version: remoraVersion,
    asRoot: machine.isRoot,
  });
}

/**
 * `remora doctor`: what is wrong on this machine, why, and what to do about it.
 *
 * @returns The exit code: 0 nothing is wrong; 1 something does not work; 2 something could not be judged, or there is no
 * such check.
 */
export async function doctor(flags: DoctorFlags, signal: AbortSignal): Promise<0 | 1 | 2> {
  let checks: readonly Check[];
  try {
    checks = chosenChecks(flags.only);
  } catch (error) {
    // 1 would say something about the machine.
    process.stderr.write(`remora: ${errorMessage(error)}\n`);
    return 2;
  }
  if (flags.list === true) {
    for (const { id, looks } of checks) process.stdout.write(`${id.padEnd(18)} ${looks}\n`);
    return 0;
  }
  const report = await examine(await thisMachine(flags, signal), checks, signal);
  const text =
    flags.json === true
      ? JSON.stringify(report, undefined, 2)
      : reportLines(report, flags.all === true).join("\n");
  process.stdout.write(`${text}\n`);
  return exitCodeOf(report);
}
