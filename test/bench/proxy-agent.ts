// The Service proxy alone, in a process of its own, for test/bench/proxy-follow.ts: argument = kubeconfig of the API
// server. One JSON line for each synchronisation that changed rules, and one for each line on stdin: how long the event
// loop stood still since the one before. Ends when its stdin does.
import { monitorEventLoopDelay } from "node:perf_hooks";
import { createInterface } from "node:readline";

import { createHttpClient } from "../../src/api/http-client.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { type Logger, silentLogger } from "../../src/lib/log.ts";
import { createProxy } from "../../src/proxy/proxy.ts";
import { clusterCIDR, nodeName } from "./proxy-cluster.ts";

export type FromProxyAgent =
  | { readonly kind: "sync"; readonly changes: number; readonly applyMs: number }
  | { readonly kind: "stall"; readonly stallMs: number; readonly rssMB: number };

function say(message: FromProxyAgent): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

const kubeconfig = JSON.parse(process.argv[2] ?? "{}") as Parameters<
  typeof createHttpClient
>[0]["kubeconfig"];
const client = createHttpClient({
  kubeconfig,
  userAgent: "bench",
  clock: systemClock,
  logger: silentLogger,
});
const logger: Logger = {
  log(level, msg, fields) {
    if (level === "warn" || level === "error")
      process.stderr.write(`${msg} ${JSON.stringify(fields)}\n`);
    if (msg !== "service rules applied") return;
    say({
      kind: "sync",
      changes: Number(fields?.["changes"]),
      applyMs: Number(fields?.["durationMs"]),
    });
  },
  child: () => logger,
};
const stop = new AbortController();
const delay = monitorEventLoopDelay({ resolution: 1 });
delay.enable();
const lines = createInterface({ input: process.stdin });
lines.on("line", () => {
  say({ kind: "stall", stallMs: delay.max / 1e6, rssMB: process.memoryUsage.rss() / 1e6 });
  delay.reset();
});
lines.on("close", () => {
  stop.abort();
});
const proxy = createProxy({
  config: {
    clusterCIDRs: [clusterCIDR],
    bindAddress: "127.0.0.1",
    proxyHealthzPort: 0,
    proxyMetricsPort: 0,
  },
  client,
  nodeName,
  nodeIPs: ["192.0.2.1"],
  clock: systemClock,
  logger,
  random: Math.random,
  events: { event: () => undefined },
});
await proxy.run(stop.signal);
await client.close();
