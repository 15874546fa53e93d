// npm run bench -- dns [--quick]: the name server beside dnsmasq with the same names, in a network namespace of its own.
// Both on the first core, who asks on the second. A server's queries per second are those of one core that does nothing
// else: answers through the time of its process, so that neither who asks nor others on the machine limit them; what came
// back on the clock stands beside it. Rounds alternate. The last line is one JSON object.
import { type ChildProcessByStdio, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";

import { type LoadFigures, type LoadOptions, serviceIP, serviceName } from "./dns-load.ts";
import { median, quantile, round } from "./figures.ts";
import { nodeFlags } from "./node-flags.ts";

interface Plan {
  readonly rounds: number;
  readonly seconds: number;
  readonly changes: number;
  readonly restarts: number;
}

const full: Plan = { rounds: 7, seconds: 4, changes: 2000, restarts: 9 };
const quick: Plan = { rounds: 2, seconds: 2, changes: 300, restarts: 3 };

const services = 10_000;
/** As many as the pods of one node talk to. */
const hot = 200;
const run = promisify(execFile);
const loadFile = new URL("dns-load.ts", import.meta.url).pathname;
const serveFile = new URL("dns-serve.ts", import.meta.url).pathname;
/** Of /proc/PID/stat, as on every Linux that Node runs on. */
const ticksPerSecond = 100;

function line(what: string, text: string): void {
  process.stdout.write(`${what.padEnd(36)} ${text}\n`);
}

/** A name server in a process of its own. */
interface Server {
  readonly name: string;
  readonly port: number;
  readonly child: ChildProcessByStdio<Writable, Readable, null>;
}

/** On a core of its own, where there are two. */
function pinned(core: number, argv: readonly string[]): readonly string[] {
  return availableParallelism() < 2 ? argv : ["taskset", "-c", String(core), ...argv];
}

function start(name: string, port: number, argv: readonly string[]): Server {
  const [file = "", ...args] = pinned(0, argv);
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
  return { name, port, child };
}

function cpuSeconds({ child }: Server): number {
  const text = readFileSync(`/proc/${child.pid ?? 0}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

async function startDnsmasq(directory: string): Promise<Server> {
  const hosts = join(directory, "hosts");
  const lines = Array.from({ length: services }, (_, at) => `${serviceIP(at)} ${serviceName(at)}`);
  await writeFile(hosts, `${lines.join("\n")}\n`, { mode: 0o644 });
  const flags = `--keep-in-foreground --conf-file=/dev/null --user=root --pid-file --port=5353
    --listen-address=127.0.0.1 --bind-interfaces --no-resolv --no-hosts --addn-hosts=${hosts}
    --local=/cluster.local/ --cache-size=10000 --local-ttl=5 --log-facility=/dev/null`;
  const server = start("dnsmasq", 5353, ["dnsmasq", ...flags.split(/\s+/)]);
  await delay(500);
  if (server.child.exitCode !== null)
    throw new Error("dnsmasq did not start; Debian has it in dnsmasq-base");
  return server;
}

async function startOurs(): Promise<Server> {
  const argv = [process.execPath, ...nodeFlags, serveFile, "5354", String(services)];
  const server = start("remora", 5354, argv);
  await once(server.child.stdout, "data");
  return server;
}

const usual = { address: "127.0.0.1", sockets: 32, sources: 32, outstanding: 8, services, seed: 1 };

async function load(options: Pick<LoadOptions, "port" | "rate" | "asked" | "seconds">) {
  const argv = [process.execPath, loadFile, JSON.stringify({ ...usual, ...options })];
  const [file = "", ...args] = pinned(1, argv);
  const { stdout } = await run(file, args);
  return JSON.parse(stdout) as LoadFigures;
}

interface Round extends LoadFigures {
  /** Answers in a second of the server's own time. */
  readonly perCore: number;
}

async function ask(server: Server, seconds: number, asked: number): Promise<Round> {
  const before = cpuSeconds(server);
  const figures = await load({ port: server.port, rate: 0, asked, seconds });
  return { ...figures, perCore: figures.answered / (cpuSeconds(server) - before) };
}

interface Capacity {
  readonly perCore: number;
  readonly onTheClock: number;
  readonly lost: number;
  readonly wrong: number;
}

function capacity(rounds: readonly Round[]): Capacity {
  const sum = (of: (round: Round) => number): number =>
    rounds.reduce((total, one) => total + of(one), 0);
  return {
    perCore: round(median(rounds.map(({ perCore }) => perCore)), 0),
    onTheClock: round(median(rounds.map(({ answered, seconds }) => answered / seconds)), 0),
    lost: sum(({ lost }) => lost),
    wrong: sum(({ wrong }) => wrong),
  };
}

/** @param asked How many of the Services are asked for. */
async function compare(
  what: string,
  servers: readonly [Server, Server],
  plan: Plan,
  asked: number,
): Promise<readonly [Capacity, Capacity]> {
  const rounds: [Round[], Round[]] = [[], []];
  for (let turn = 0; turn < plan.rounds; turn += 1) {
    for (const side of [0, 1] as const) {
      rounds[side].push(await ask(servers[side], plan.seconds, asked));
    }
  }
  const both = [capacity(rounds[0]), capacity(rounds[1])] as const;
  for (const side of [0, 1] as const) {
    const { perCore, onTheClock, lost, wrong } = both[side];
    const each = round(1e6 / perCore, 1);
    const text = `${perCore} a second and core (${each} us each), ${onTheClock} on the clock, ${lost} lost, ${wrong} wrong, n=${plan.rounds}`;
    line(`${what}, ${servers[side].name}`, text);
  }
  return both;
}

/** dnsperf's word on the same, on the clock; undefined without it. */
async function secondOpinion(directory: string, server: Server): Promise<number | undefined> {
  const questions: string[] = [];
  for (let turn = 0; turn < 20_000; turn += 1) {
    const name = serviceName((turn * 7919) % services);
    for (const suffix of [".app.svc.cluster.local", ".svc.cluster.local", ".cluster.local", ""]) {
      questions.push(`${name}${suffix} A`, `${name}${suffix} AAAA`);
    }
  }
  const file = join(directory, "questions");
  await writeFile(file, `${questions.join("\n")}\n`);
  const argv = ["dnsperf", "-s", "127.0.0.1", "-p", String(server.port), "-d", file];
  const [program = "", ...args] = pinned(1, [...argv, "-l", "4", "-c", "16", "-q", "400"]);
  try {
    const { stdout } = await run(program, args, { maxBuffer: 1e7 });
    return Number(/Queries per second:\s+([\d.]+)/.exec(stdout)?.[1]);
  } catch {
    return undefined;
  }
}

async function command(server: Server, text: string): Promise<Record<string, number>> {
  const lines = createInterface({ input: server.child.stdout });
  const answer = once(lines, "line");
  server.child.stdin.write(`${text}\n`);
  const [said] = (await answer) as [string];
  lines.close();
  return JSON.parse(said) as Record<string, number>;
}

async function stop({ child }: Server): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
}

async function atHalfLoad(
  servers: readonly [Server, Server],
  rate: number,
  plan: Plan,
): Promise<Record<string, unknown>> {
  const figures: Record<string, unknown> = { half_load_qps: rate };
  for (const server of servers) {
    const rounds: LoadFigures[] = [];
    for (let turn = 0; turn < plan.rounds; turn += 1) {
      rounds.push(await load({ port: server.port, rate, asked: services, seconds: plan.seconds }));
    }
    const p99 = median(rounds.map(({ p99Ms }) => p99Ms));
    const p50 = median(rounds.map(({ p50Ms }) => p50Ms));
    const lost = rounds.reduce((total, one) => total + one.lost, 0);
    line(`${rate} a second, ${server.name}`, `p50 ${p50} ms  p99 ${p99} ms  ${lost} lost`);
    const prefix = server.name === "remora" ? "" : "dnsmasq_";
    Object.assign(figures, { [`${prefix}p50_ms`]: p50, [`${prefix}p99_ms`]: p99 });
  }
  return figures;
}

async function bigCluster(ours: Server, plan: Plan): Promise<Record<string, unknown>> {
  const memory = await command(ours, "memory");
  line(
    `thread with ${services} Services`,
    `${memory["threadMB"]} MB resident, heap ${memory["heapMB"]} MB; without any ${memory["emptyMB"]} MB`,
  );
  const changes: number[] = [];
  for (let turn = 0; turn < plan.changes; turn += 1) {
    changes.push((await command(ours, "change"))["us"] ?? Number.NaN);
  }
  const changeUs = round(median(changes), 1);
  const changeP99Us = round(quantile(changes, 0.99), 1);
  line("one endpoint changes", `p50 ${changeUs} us  p99 ${changeP99Us} us  n=${plan.changes}`);
  const gaps: number[] = [];
  for (let turn = 0; turn < plan.restarts; turn += 1) {
    gaps.push((await command(ours, "restart"))["ms"] ?? Number.NaN);
  }
  const gapMs = round(median(gaps), 0);
  line("last answer -> first of the next", `p50 ${gapMs} ms  n=${plan.restarts}`);
  return {
    thread_mb: memory["threadMB"],
    heap_mb: memory["heapMB"],
    empty_thread_mb: memory["emptyMB"],
    change_us: changeUs,
    change_p99_us: changeP99Us,
    restart_gap_ms: gapMs,
  };
}

/** Runs in the namespace that bench.ts made; `argv` are the words after the benchmark's name. */
export async function benchDns(argv: readonly string[]): Promise<void> {
  const plan = argv.includes("--quick") ? quick : full;
  const directory = await mkdtemp(join(tmpdir(), "remora-bench-"));
  const startedAt = performance.now();
  const loadBefore = loadavg();
  const servers: Server[] = [];
  try {
    const dnsmasq = await startDnsmasq(directory);
    servers.push(dnsmasq);
    const ours = await startOurs();
    servers.push(ours);
    const both = [ours, dnsmasq] as const;
    for (const server of both) await ask(server, 2, services);
    const [mine, theirs] = await compare(`${services} Services`, both, plan, services);
    const [hotMine, hotTheirs] = await compare(`${hot} of them`, both, plan, hot);
    const rate = Math.round(Math.min(mine.perCore, mine.onTheClock) / 200) * 100;
    const half = await atHalfLoad(both, rate, plan);
    const perf: Record<string, unknown> = {};
    for (const server of both) {
      const qps = await secondOpinion(directory, server);
      if (qps === undefined) continue;
      line(`dnsperf, ${server.name}`, `${round(qps, 0)} a second on the clock`);
      perf[`dnsperf_${server.name}_qps`] = round(qps, 0);
    }
    const result = {
      bench: "dns",
      qps_ratio: round(mine.perCore / theirs.perCore),
      qps: mine.perCore,
      dnsmasq_qps: theirs.perCore,
      clock_qps: mine.onTheClock,
      dnsmasq_clock_qps: theirs.onTheClock,
      hot_qps_ratio: round(hotMine.perCore / hotTheirs.perCore),
      hot_qps: hotMine.perCore,
      dnsmasq_hot_qps: hotTheirs.perCore,
      lost: mine.lost + hotMine.lost,
      wrong: mine.wrong + hotMine.wrong + theirs.wrong + hotTheirs.wrong,
      ...half,
      ...perf,
      ...(await bigCluster(ours, plan)),
      n: plan.rounds,
      load_before: loadBefore.map((value) => round(value, 1)),
      load_after: loadavg().map((value) => round(value, 1)),
      seconds: round((performance.now() - startedAt) / 1000, 0),
    };
    process.stdout.write(`${JSON.stringify(result)}\n`);
  } finally {
    for (const server of servers) await stop(server);
    await rm(directory, { recursive: true, force: true });
  }
}
