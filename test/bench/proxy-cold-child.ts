// One cold start of the rules of one family in a process of its own, for test/bench/proxy-cold.ts. Arguments: number of
// Services, endpoints of each, file that gets the same rules as one nft text. Services and slices are in memory as the
// proxy's informers keep them; the clock runs from there until the kernel has everything. One JSON line.
import { writeFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";

import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { defaultTableName } from "../../src/proxy/make-family-rules.ts";
import { FamilyRules } from "../../src/proxy/family-rules.ts";
import { NftBackend } from "../../src/proxy/nftables/backend.ts";
import { inSlices } from "../../src/lib/in-slices.ts";
import { parseService, parseSlice, type ServiceView } from "../../src/proxy/parse.ts";
import { SliceIndex } from "../../src/proxy/slice-index.ts";
import { clusterCIDR, nodeName, numbered } from "./proxy-cluster.ts";

export interface ColdResult {
  readonly services: number;
  readonly endpoints: number;
  /** Milliseconds of planning alone, and of all. */
  readonly planMs: number;
  readonly coldMs: number;
  readonly stallMs: number;
  readonly transactions: number;
  readonly bytes: number;
  readonly rssMB: number;
}

const [count, endpoints, file] = [
  Number(process.argv[2]),
  Number(process.argv[3]),
  process.argv[4],
];
const context = {
  family: "IPv4",
  local: { kind: "cidrs", cidrs: [clusterCIDR] },
  nodePortIPs: ["192.0.2.1"],
  localhostNodePorts: false,
  serviceCIDRs: [],
  mark: 0x4000,
  masqueradeAll: false,
} as const;
const logger = silentLogger;
const backend = new NftBackend({
  context,
  tableName: defaultTableName,
  logger,
  clock: systemClock,
});
const rules = new FamilyRules({ context, backend, logger });
const index = new SliceIndex(nodeName);
const services: ServiceView[] = [];
for (let number = 0; number < count; number += 1) {
  // Through text, as they come: strings of their own, and nothing shared by accident.
  const object = JSON.parse(JSON.stringify(numbered(number, endpoints))) as Record<string, unknown>;
  services.push(parseService(object["service"]));
  index.set(parseSlice(object["slice"]));
}
const { signal } = new AbortController();
const node = { name: nodeName, zone: "", ips: ["192.0.2.1"] };
await systemClock.sleep(200, signal);
const delay = monitorEventLoopDelay({ resolution: 1 });
delay.enable();
await systemClock.sleep(20, signal);
delay.reset();
const start = performance.now();
await inSlices(services, systemClock, (service) => {
  rules.update(service.key, service, index, node);
});
const planMs = performance.now() - start;
const result = await rules.sync(signal);
const coldMs = performance.now() - start;
await systemClock.sleep(20, signal);
const report: ColdResult = {
  services: count,
  endpoints,
  planMs,
  coldMs,
  stallMs: delay.max / 1e6,
  transactions: result.transactions,
  bytes: result.bytes,
  rssMB: process.memoryUsage.rss() / 1e6,
};
if (file !== undefined) writeFileSync(file, rules.render());
process.stdout.write(`${JSON.stringify(report)}\n`);
