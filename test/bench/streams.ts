// npm run bench -- streams [--quick] [--only]: the node's own API on 10250 against the engine alone and against socat, on
// the same machine in the same minutes; then logs and metrics. Needs root: it makes a machine of namespaces with its own
// dockerd. With --only, exec and port-forward and nothing else.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";

import { type Machine, root } from "../e2e/lib/machine.ts";
import { withAgent } from "./bundle.ts";
import { median, round, spread as spreadOf } from "./figures.ts";
import type { StreamsOptions, StreamsResult } from "./streams-load.ts";

type Plan = Omit<StreamsOptions, "pid" | "pem">;

const full: Plan = { execs: 100, rounds: 5, streamMB: 512, manyExecs: 10_000, relayMB: 1024 };
const quick: Plan = { execs: 30, rounds: 2, streamMB: 256, manyExecs: 500, relayMB: 256 };

function line(what: string, text: string): void {
  process.stdout.write(`${what.padEnd(44)} ${text}\n`);
}

/** A certificate for socat, of the same kind as the node's own: P-256. */
function socatPem(directory: string): string {
  const [key, cert, pem] = ["key", "cert", "pem"].map((name) => join(directory, `socat.${name}`));
  if (key === undefined || cert === undefined || pem === undefined) return "";
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const argv = ["req", "-x509", ...curve, "-subj", "/CN=socat", "-days", "2"];
  execFileSync("openssl", [...argv, "-keyout", key, "-out", cert], { stdio: "ignore" });
  writeFileSync(pem, Buffer.concat([readFileSync(key), readFileSync(cert)]), { mode: 0o600 });
  return pem;
}

const spread = (values: readonly number[]): string => spreadOf(values, 1);

function report(result: StreamsResult, { streamMB, relayMB }: Plan): Record<string, number> {
  line("exec by WebSocket, with its TLS connection", spread(result.execMs));
  line("raw create + start + inspect", spread(result.engineExecMs));
  const rate = (what: string): number => median(result.rates[what] ?? []);
  line("port-forward against", result.socat.join(" "));
  for (const [what, about] of [
    ["down", `${streamMB} MB from the pod, 1 connection`],
    ["up", `${streamMB} MB to the pod, 1 connection`],
    ["down16", `${streamMB} MB from the pod, 16 connections`],
    ["up16", `${streamMB} MB to the pod, 16 connections`],
  ] as const) {
    const both = `${round(rate(what), 0)} MB/s, socat ${round(rate(`socat ${what}`), 0)} MB/s`;
    line(`  ${about}`, `${both}, n=${result.rates[what]?.length ?? 0}`);
  }
  const ratio = (what: string): number => round(rate(what) / rate(`socat ${what}`));
  for (const [name, growth] of Object.entries(result.relayGrowthMB)) {
    line(`growth over ${relayMB} MB of ${name}`, `${round(growth, 1)} MB`);
  }
  const [before, after] = result.execRssMB;
  line(`resident over ${result.manyExecs} execs`, `${round(before, 1)} -> ${round(after, 1)} MB`);
  return {
    exec_ratio: round(median(result.execMs) / median(result.engineExecMs)),
    portforward_ratio: Math.min(ratio("down"), ratio("up")),
    portforward_down_ratio: ratio("down"),
    portforward_up_ratio: ratio("up"),
    portforward16_ratio: Math.min(ratio("down16"), ratio("up16")),
    portforward16_down_ratio: ratio("down16"),
    portforward16_up_ratio: ratio("up16"),
    relay_growth_mb: round(Math.max(...Object.values(result.relayGrowthMB)), 1),
    execs: result.manyExecs,
    exec10k_growth_mb: round(after - before, 1),
  };
}

async function load(machine: Machine, options: StreamsOptions): Promise<StreamsResult> {
  const { stderr, stdout } = await machine.exec(
    [
      process.execPath,
      `${root}/test/bench/streams-load.ts`,
      "/run/home/.kube/config",
      "/run/docker.sock",
      JSON.stringify(options),
    ],
    { timeoutMs: 1_800_000 },
  );
  process.stderr.write(stderr);
  return JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "") as StreamsResult;
}

/** Runs it all; `argv` are the words after the benchmark's name. */
export async function benchStreams(argv: readonly string[]): Promise<void> {
  if (!["/usr/bin/socat", "/bin/socat", "/usr/local/bin/socat"].some((path) => existsSync(path))) {
    throw new Error(
      "socat is missing, which port-forward is measured against: apt-get install socat",
    );
  }
  const plan = argv.includes("--quick") ? quick : full;
  const directory = await mkdtemp(join(tmpdir(), "remora-bench-"));
  try {
    const pem = socatPem(directory);
    await withAgent("strm", async (machine, pid) => {
      const result = await load(machine, { ...plan, pid, pem });
      let figures = report(result, plan);
      if (!argv.includes("--only")) {
        const { benchLogs } = await import("./streams-logs.ts");
        const { benchScrape } = await import("./streams-scrape.ts");
        figures = { ...figures, ...(await benchLogs(machine)) };
        figures = { ...figures, ...(await benchScrape(machine)) };
      }
      const loads = loadavg().map((value) => round(value));
      line("load average (1, 5, 15 min)", loads.join(" "));
      process.stdout.write(`${JSON.stringify(figures)}\n`);
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
