// The Service proxy alone, in a process of its own, for test/bench/proxy.ts: argument = URL of the API server. Prints
// one JSON line when the rules are in the kernel for the first time; ends when its stdin does.
import { createHttpClient } from "../../src/api/http-client.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { type Logger, silentLogger } from "../../src/lib/log.ts";
import { createProxy } from "../../src/proxy/proxy.ts";

const kubeconfig = JSON.parse(process.argv[2] ?? "{}") as Parameters<
  typeof createHttpClient
>[0]["kubeconfig"];
const client = createHttpClient({
  kubeconfig,
  userAgent: "bench",
  clock: systemClock,
  logger: silentLogger,
});
const startedAt = performance.now();
let told = false;
const logger: Logger = {
  log(level, msg, fields) {
    if (level === "warn" || level === "error")
      process.stderr.write(`${msg} ${JSON.stringify(fields)}\n`);
    if (told || msg !== "service rules applied") return;
    told = true;
    const line = {
      readyMs: performance.now() - startedAt,
      applyMs: fields?.["durationMs"],
      changes: fields?.["changes"],
      rssMB: process.memoryUsage.rss() / 1e6,
    };
    process.stdout.write(`${JSON.stringify(line)}\n`);
  },
  child: () => logger,
};
const stop = new AbortController();
process.stdin.on("end", () => {
  stop.abort();
});
process.stdin.resume();
const proxy = createProxy({
  config: {
    clusterCIDRs: ["10.244.0.0/16"],
    bindAddress: "127.0.0.1",
    proxyHealthzPort: 0,
    proxyMetricsPort: 0,
  },
  client,
  nodeName: "bench",
  nodeIPs: ["192.0.2.1"],
  clock: systemClock,
  logger,
  random: Math.random,
  events: { event: () => undefined },
});
await proxy.run(stop.signal);
await client.close();
