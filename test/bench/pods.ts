// npm run bench -- pods [--quick]: how fast pods start and end, against the engine alone on the same machine in the same
// minute, and what an idle node costs. Needs root: it makes a machine of namespaces with its own dockerd.
import { loadavg } from "node:os";

import { type Machine, root } from "../e2e/lib/machine.ts";
import { withAgent } from "./bundle.ts";
import { median, quantile, round, spread as spreadOf } from "./figures.ts";
import type { IdleOptions, IdleResult, SpeedOptions, SpeedResult } from "./pods-load.ts";

interface Plan {
  readonly speed: SpeedOptions;
  readonly idle: Omit<IdleOptions, "pid">;
}

const full: Plan = {
  speed: { singles: 60, rounds: 5, burst: 30, concurrencies: [2, 4, 8] },
  idle: { pods: 110, settleMs: 30_000, measureMs: 120_000 },
};
const quick: Plan = {
  speed: { singles: 15, rounds: 1, burst: 30, concurrencies: [2, 4] },
  idle: { pods: 40, settleMs: 5000, measureMs: 20_000 },
};

/** A renewal is due 10 s after the last one, and up to 4 % later, so that nodes do not move in step. */
const leaseDueMs = 10_400;

async function load(machine: Machine, phase: string, options: object): Promise<unknown> {
  const { stderr, stdout } = await machine.exec(
    [
      process.execPath,
      `${root}/test/bench/pods-load.ts`,
      "/run/home/.kube/config",
      "/run/docker.sock",
      phase,
      JSON.stringify(options),
    ],
    { timeoutMs: 800_000 },
  );
  process.stderr.write(stderr);
  return JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "");
}

function line(what: string, text: string): void {
  process.stdout.write(`${what.padEnd(36)} ${text}\n`);
}

const spread = (values: readonly number[]): string => spreadOf(values, 0);

/** Said as soon as it is known: what follows takes minutes. */
function reportSpeed(speed: SpeedResult): void {
  line("create -> Ready", spread(speed.createToReadyMs));
  line("  of which create -> node chosen", spread(speed.createToScheduledMs));
  line("raw create + start of both", spread(speed.rawStartMs));
  line("delete -> gone", spread(speed.deleteMs));
  line("raw docker stop + rm of both", spread(speed.rawStopMs));
  line("burst, create -> last Ready", spread(speed.burstMs));
  for (const [concurrency, values] of Object.entries(speed.rawBurstMs)) {
    line(`burst, raw, ${concurrency} at a time`, spread(values));
  }
  line("gaps between lease renewals", spread(speed.leaseGapsMs));
}

function report(speed: SpeedResult, idle: IdleResult): void {
  line(
    `idle with ${idle.pods} pods`,
    `${round(idle.cpuPercent)} % of one CPU over ${round(idle.seconds, 0)} s, ${idle.rssMB} MB resident`,
  );
  line("  by thread", JSON.stringify(idle.threads));
  line(
    "load average (1, 5, 15 min)",
    loadavg()
      .map((value) => round(value))
      .join(" "),
  );
  const best = Math.min(...Object.values(speed.rawBurstMs).map(median));
  const late = speed.leaseGapsMs.map((gap) => Math.max(gap - leaseDueMs, 0));
  const { createToReadyMs, deleteMs, rawStartMs, rawStopMs } = speed;
  const result = {
    start_ratio_p50: round(median(createToReadyMs) / median(rawStartMs)),
    start_ratio_p99_over_p50: round(quantile(createToReadyMs, 0.99) / median(createToReadyMs)),
    burst30_ratio: round(median(speed.burstMs) / best),
    delete_over_docker_ms: round(median(deleteMs) - median(rawStopMs), 0),
    idle_cpu_percent: round(idle.cpuPercent),
    lease_late_p99_ms: round(quantile(late, 0.99), 0),
    idle_pods: idle.pods,
  };
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

/** Runs it all; `argv` are the words after the benchmark's name. */
export async function benchPods(argv: readonly string[]): Promise<void> {
  const plan = argv.includes("--quick") ? quick : full;
  await withAgent("pods", async (machine, pid) => {
    const speed = (await load(machine, "speed", plan.speed)) as SpeedResult;
    reportSpeed(speed);
    const idle = (await load(machine, "idle", { ...plan.idle, pid })) as IdleResult;
    report(speed, idle);
  });
}
