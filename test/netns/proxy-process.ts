// A Service proxy in a process of its own, so that it can be killed at any moment. Arguments: a kubeconfig and the
// settings that are not the default, as JSON.
import { createHttpClient } from "../../src/api/http-client.ts";
import type { Kubeconfig } from "../../src/api/kubeconfig-types.ts";
import { proxyDefaults } from "../../src/config/agent-config.ts";
import type { ProxySettings } from "../../src/config/types.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { jsonLogger } from "../../src/lib/log.ts";
import { createProxy } from "../../src/proxy/proxy.ts";

const [kubeconfig = "{}", settings = "{}", metricsPort = "0"] = process.argv.slice(2);
const logger = jsonLogger({
  level: "debug",
  now: () => systemClock.now(),
  write: (line) => process.stdout.write(line),
});
const client = createHttpClient({
  kubeconfig: JSON.parse(kubeconfig) as Kubeconfig,
  userAgent: "test",
  clock: systemClock,
  logger,
});
const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());
const proxy = createProxy({
  config: {
    clusterCIDRs: ["10.244.0.0/16", "fd00:244::/48"],
    bindAddress: "127.0.0.1",
    proxyHealthzPort: 0,
    proxyMetricsPort: Number(metricsPort),
    proxy: { ...proxyDefaults, ...(JSON.parse(settings) as Partial<ProxySettings>) },
  },
  client,
  nodeName: "here",
  nodeIPs: ["192.0.2.1", "2001:db8:5::1"],
  clock: systemClock,
  logger,
  random: Math.random,
  events: {
    event: (_, type, reason, message) => {
      logger.log("info", "event", { type, reason, message });
    },
  },
});
await proxy.run(stop.signal);
await client.close();
