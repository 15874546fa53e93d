// How fast a container's log is served, for test/bench/streams.ts: the node's own API against Docker's log API, on the same
// log in the same minutes.
import { type Machine, root } from "../e2e/lib/machine.ts";
import { median } from "./figures.ts";
import type { LogsOptions, LogsResult } from "./streams-logs-load.ts";

const options: LogsOptions = { lines: 200_000, rounds: 7 };

function report(what: string, values: readonly number[]): void {
  const [least, most] = [Math.min(...values), Math.max(...values)].map((ms) => ms.toFixed(0));
  const text = `median ${median(values).toFixed(0)} ms  (${least} to ${most})  n=${values.length}`;
  process.stdout.write(`${what.padEnd(44)} ${text}\n`);
}

/** Needs `remora up` and busybox on the machine. `logs_speedup`: Docker's time over ours, straight from 10250. */
export async function benchLogs(machine: Machine): Promise<Record<string, number>> {
  const { stdout } = await machine.exec(
    [
      process.execPath,
      `${root}/test/bench/streams-logs-load.ts`,
      "/run/home/.kube/config",
      "/run/docker.sock",
      JSON.stringify(options),
    ],
    { timeoutMs: 300_000 },
  );
  const result = JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "") as LogsResult;
  const size = `${options.lines} lines, ${(result.bytes / 1e6).toFixed(0)} MB`;
  report(`log of ${size}, from 10250`, result.nodeMs);
  report("  GET /containers/ID/logs of Docker", result.dockerMs);
  report("  through the API server", result.apiMs);
  const docker = median(result.dockerMs);
  return {
    logs_speedup: Number((docker / median(result.nodeMs)).toFixed(2)),
    logs_api_speedup: Number((docker / median(result.apiMs)).toFixed(2)),
  };
}
