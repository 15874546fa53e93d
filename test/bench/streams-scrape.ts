// How long scrapers wait for the node's pages, for test/bench/streams.ts: a full node, one kept connection, and each time a
// sample that nobody else has had.
import { type Machine, root } from "../e2e/lib/machine.ts";
import { median } from "./figures.ts";
import type { ScrapeOptions, ScrapeResult } from "./streams-scrape-load.ts";

const options: ScrapeOptions = { pods: 110, rounds: 15, pauseMs: 1100 };

function spread(values: readonly number[]): string {
  const [least, most] = [Math.min(...values), Math.max(...values)].map((ms) => ms.toFixed(1));
  return `median ${median(values).toFixed(1)} ms  (${least} to ${most})  n=${values.length}`;
}

function report({ bytes, ms, serverMs }: ScrapeResult): void {
  for (const [page, values] of Object.entries(ms)) {
    const size = `${((bytes[page] ?? 0) / 1024).toFixed(0)} KiB`;
    process.stdout.write(`${`scrape of ${page}, ${size}`.padEnd(44)} ${spread(values)}\n`);
    const own = serverMs[page];
    if (own !== undefined)
      process.stdout.write(`${"  of which the node".padEnd(44)} ${spread(own)}\n`);
  }
}

/**
 * Needs `remora up` and busybox on the machine. `resource_scrape_ms`, `summary_scrape_ms`: what the node itself counts
 * for a request, from when it knows who asks until the last byte is on its way, with 110 pods.
 */
export async function benchScrape(machine: Machine): Promise<Record<string, number>> {
  const { stdout } = await machine.exec(
    [
      process.execPath,
      `${root}/test/bench/streams-scrape-load.ts`,
      "/run/home/.kube/config",
      JSON.stringify(options),
    ],
    { timeoutMs: 600_000 },
  );
  const result = JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "") as ScrapeResult;
  report(result);
  const figure = (page: string): number => Number(median(result.serverMs[page] ?? []).toFixed(1));
  return {
    resource_scrape_ms: figure("/metrics/resource"),
    summary_scrape_ms: figure("/stats/summary"),
    cadvisor_scrape_ms: figure("/metrics/cadvisor"),
  };
}
