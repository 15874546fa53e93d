// How long scrapers wait for the node's pages, for test/bench/streams.ts: a full node, one kept connection, and each time a
// sample that nobody else has had.
import { type Machine, root } from "../e2e/lib/machine.ts";
import type { ScrapeOptions, ScrapeResult } from "./streams-scrape-load.ts";

const options: ScrapeOptions = { pods: 110, rounds: 15, pauseMs: 1100 };

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function report(page: string, values: readonly number[], bytes: number): void {
  const [least, most] = [Math.min(...values), Math.max(...values)].map((ms) => ms.toFixed(1));
  const size = `${(bytes / 1024).toFixed(0)} KiB`;
  const text = `median ${median(values).toFixed(1)} ms  (${least} to ${most})  n=${values.length}, ${size}`;
  process.stdout.write(`${`scrape of ${page}`.padEnd(44)} ${text}\n`);
}

/**
 * Needs `remora up` and busybox on the machine. `resource_scrape_ms`, `summary_scrape_ms`: from the request to the last
 * byte, over TLS, with 110 pods.
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
  const { bytes, ms } = JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "") as ScrapeResult;
  for (const [page, values] of Object.entries(ms)) report(page, values, bytes[page] ?? 0);
  const figure = (page: string): number => Number(median(ms[page] ?? []).toFixed(1));
  return {
    resource_scrape_ms: figure("/metrics/resource"),
    summary_scrape_ms: figure("/stats/summary"),
    cadvisor_scrape_ms: figure("/metrics/cadvisor"),
  };
}
