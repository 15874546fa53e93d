// npm run bench -- proxy [--quick] [--only=cold,follow,iptables,memory,network]: the Service proxy against its bounds, in a
// network namespace of its own. Milliseconds unless a name says otherwise. Beside each figure stands what it is divided
// by: `nft -f` of the same text, and kube-proxy's layout. Measurements of both sides alternate. The last line is one
// JSON object.
import { mkdtemp, rm } from "node:fs/promises";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";

import { cleanUpProxy } from "../../src/proxy/cleanup.ts";
import { sh } from "../netns/namespace.ts";
import { build } from "./bundle.ts";
import { median, quantile, round } from "./figures.ts";
import { type ColdFigures, measureCold, measurePerServiceMap } from "./proxy-cold.ts";
import { changeSummary, type FollowFigures, measureFollowing } from "./proxy-follow.ts";
import { measureIptables } from "./proxy-iptables.ts";
import { measureMemory } from "./proxy-memory.ts";
import { measureNetwork } from "./proxy-network.ts";

interface Plan {
  readonly rounds: number;
  /** Rounds with 45 000 Services. */
  readonly bigRounds: number;
  readonly changes: number;
  readonly bursts: number;
  readonly rollSteps: number;
  readonly iptablesChanges: number;
  readonly restMs: number;
  readonly memoryRounds: number;
  readonly pods: number;
}

const full: Plan = {
  rounds: 5,
  bigRounds: 3,
  changes: 200,
  bursts: 5,
  rollSteps: 300,
  iptablesChanges: 30,
  restMs: 30_000,
  memoryRounds: 3,
  pods: 40,
};
const quick: Plan = {
  rounds: 2,
  bigRounds: 1,
  changes: 60,
  bursts: 2,
  rollSteps: 60,
  iptablesChanges: 7,
  restMs: 10_000,
  memoryRounds: 1,
  pods: 5,
};

/** All bounds are for so many Services. */
const usual = 10_000;
const many = 45_000;

function line(what: string, text: string): void {
  process.stdout.write(`${what.padEnd(36)} ${text}\n`);
}

type Figures = Readonly<Record<string, unknown>>;

function tellCold(what: string, cold: ColdFigures): void {
  line(
    what,
    `${cold.coldMs} ms, nft -f of the same rules ${cold.nftMs} ms: ${cold.ratio} (plan ${cold.planMs}, stall ${cold.stallMs}, ${cold.transactions} transactions, ${cold.bytes} characters, n=${cold.n})`,
  );
}

async function cold(plan: Plan, directory: string): Promise<Figures> {
  const two = await measureCold(directory, usual, 2, plan.rounds);
  tellCold(`cold, ${usual} Services x 2`, two);
  const perServiceMapMs = await measurePerServiceMap(directory, usual);
  line(`nft -f of kube-proxy's layout, ${usual}`, `${round(perServiceMapMs, 0)} ms`);
  const one = await measureCold(directory, usual, 1, plan.rounds);
  tellCold(`cold, ${usual} Services x 1`, one);
  const manyOne = await measureCold(directory, many, 1, plan.bigRounds);
  tellCold(`cold, ${many} Services x 1`, manyOne);
  const manyTwo = await measureCold(directory, many, 2, plan.bigRounds);
  tellCold(`cold, ${many} Services x 2`, manyTwo);
  const linearity = (big: ColdFigures, small: ColdFigures): number =>
    round(big.coldMs / many / (small.coldMs / usual));
  return {
    cold_10k_ms: two.coldMs,
    cold_10k_nft_ms: two.nftMs,
    cold_over_nft: two.ratio,
    cold_stall_ms: Math.max(two.stallMs, manyTwo.stallMs),
    per_service_map_10k_ms: round(perServiceMapMs, 0),
    cold_vs_per_service_map: round(two.coldMs / perServiceMapMs, 3),
    cold_10k_1_ms: one.coldMs,
    cold_45k_1_ms: manyOne.coldMs,
    cold_45k_2_ms: manyTwo.coldMs,
    cold_45k_2_nft_ms: manyTwo.nftMs,
    linearity_1: linearity(manyOne, one),
    linearity: linearity(manyTwo, two),
    cold_n: [two.n, manyTwo.n],
  };
}

function tellFollow({ change, bursts, roll, readyMs }: FollowFigures): void {
  line("start with an empty table -> ready", `${round(readyMs, 0)} ms`);
  line("change -> new backend answers", JSON.stringify(changeSummary(change)));
  line(
    "burst of 1000",
    bursts
      .map(({ burstMs, stallMs }) => `${round(burstMs, 0)} ms (stall ${round(stallMs, 0)})`)
      .join(", "),
  );
  line(
    "roll of 300, per synchronisation",
    `p50 ${median(roll.syncs)} p99 ${quantile(roll.syncs, 0.99)} max ${Math.max(...roll.syncs)} ms n=${roll.syncs.length}; ${roll.dead} of ${roll.connections} connections went nowhere`,
  );
}

async function follow(plan: Plan): Promise<Figures> {
  const { changes, bursts, rollSteps } = plan;
  const figures = await measureFollowing({ services: usual, changes, bursts, rollSteps });
  tellFollow(figures);
  const change = changeSummary(figures.change);
  const { p50 = Number.NaN, nft_p50: nftP50 = Number.NaN } = change;
  return {
    change_p50_ms: p50,
    change_p99_ms: change["p99"],
    change_nft_p50_ms: nftP50,
    change_over_nft: round(p50 / nftP50),
    change_n: change["n"],
    burst_1000_ms: round(median(figures.bursts.map(({ burstMs }) => burstMs)), 0),
    burst_stall_ms: round(Math.max(...figures.bursts.map(({ stallMs }) => stallMs)), 0),
    burst_n: figures.bursts.length,
    roll_300_max_ms: Math.max(...figures.roll.syncs),
    roll_300_p50_ms: median(figures.roll.syncs),
    roll_n: figures.roll.syncs.length,
    roll_connections: figures.roll.connections,
    roll_dead_connections: figures.roll.dead,
  };
}

/** Half as many, as in the bound. */
const iptablesServices = 5000;

async function iptables(plan: Plan): Promise<Figures> {
  const found = await measureIptables({
    cold: usual,
    services: iptablesServices,
    changes: plan.iptablesChanges,
  });
  for (const one of found) line(`iptables (${one.variant})`, JSON.stringify(one));
  const native = found.find(({ variant }) => variant === "nf_tables");
  return {
    iptables_change_ratio: Math.max(...found.map(({ changeRatio }) => changeRatio)),
    iptables_cold_10k_ms: native?.coldMs,
    iptables_n: plan.iptablesChanges,
    iptables: found,
  };
}

async function memory(plan: Plan, directory: string): Promise<Figures> {
  build(directory);
  const { services, emptyMB, fullMB, bytesPerService, seenMB } = await measureMemory(
    directory,
    usual,
    { restMs: plan.restMs, rounds: plan.memoryRounds },
  );
  line(
    `agent with 0 and ${services} Services`,
    `${emptyMB} MB, ${fullMB} MB resident (${JSON.stringify(seenMB)})`,
  );
  return {
    rss_0_mb: emptyMB,
    rss_10k_mb: fullMB,
    bytes_per_service: bytesPerService,
    memory_n: seenMB.length,
  };
}

async function network(plan: Plan): Promise<Figures> {
  const figures = await measureNetwork(plan.pods);
  line("one pod's network", JSON.stringify(figures));
  return { network: figures };
}

/** Everything that pods and Services have as addresses is this machine. */
async function prepare(): Promise<void> {
  await sh("ip", "link", "set", "lo", "up");
  await sh("ip", "addr", "add", "192.0.2.1/32", "dev", "lo");
  await sh("ip", "route", "add", "local", "10.128.0.0/9", "dev", "lo");
  await sh("ip", "route", "add", "172.16.0.0/12", "dev", "lo", "src", "192.0.2.1");
}

/** Runs in the namespace that bench.ts made; `argv` are the words after the benchmark's name. */
export async function benchProxy(argv: readonly string[]): Promise<void> {
  const plan = argv.includes("--quick") ? quick : full;
  const only = argv.find((word) => word.startsWith("--only="))?.slice("--only=".length);
  const directory = await mkdtemp(join(tmpdir(), "remora-bench-"));
  const { signal } = new AbortController();
  const startedAt = performance.now();
  const loadBefore = loadavg();
  const parts: Readonly<Record<string, () => Promise<Figures>>> = {
    cold: () => cold(plan, directory),
    follow: async () => {
      await prepare();
      const figures = await follow(plan);
      await cleanUpProxy(signal);
      return figures;
    },
    iptables: () => iptables(plan),
    memory: () => memory(plan, join(directory, "bundle")),
    network: () => network(plan),
  };
  const result: Record<string, unknown> = { bench: "proxy" };
  try {
    for (const name of only?.split(",") ?? Object.keys(parts)) {
      Object.assign(result, await parts[name]?.());
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  result["load_before"] = loadBefore.map((value) => round(value, 1));
  result["load_after"] = loadavg().map((value) => round(value, 1));
  result["seconds"] = round((performance.now() - startedAt) / 1000, 0);
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
