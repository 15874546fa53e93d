// What a Service costs the whole agent: `remora run` from the bundle, with the flags it is installed with, on a machine
// of namespaces with its own dockerd, beside a fake API server with no Services and with many of them.
import { join } from "node:path";

import { systemClock } from "../../src/lib/clock.ts";
import { eventually, Machine, root } from "../e2e/lib/machine.ts";
import { median, round } from "./figures.ts";
import { nodeEnvironment, nodeFlags } from "./node-flags.ts";

const { signal } = new AbortController();
const program = "remora.cjs";

export interface MemoryFigures {
  readonly services: number;
  /** Medians over all rounds, and what was seen. */
  readonly emptyMB: number;
  readonly fullMB: number;
  readonly bytesPerService: number;
  readonly seenMB: readonly { readonly empty: number; readonly full: number }[];
}

async function elements(machine: Machine): Promise<number> {
  const { stdout } = await machine.exec(
    ["nft", "list", "set", "ip", "remora-proxy", "cluster-ips"],
    {
      allowFailure: true,
    },
  );
  return stdout.split(",").length;
}

/** Resident bytes of the agent when it has rested for `restMs` with so many Services. */
async function measure(directory: string, services: number, restMs: number): Promise<number> {
  await using machine = await Machine.start("proxy");
  const kubeconfig = "/run/bench.kubeconfig";
  const api = machine.spawn([
    process.execPath,
    `${root}/test/bench/proxy-memory-api.ts`,
    String(services),
    kubeconfig,
  ]);
  await eventually(async () => (api.output().includes("serving") ? true : undefined), {
    timeoutMs: 60_000,
    describe: () => api.output(),
  });
  const agent = machine.spawn([
    "env",
    ...nodeEnvironment,
    process.execPath,
    ...nodeFlags,
    join(directory, program),
    "run",
    "--kubeconfig",
    kubeconfig,
    "--cluster-dns",
    "172.16.0.10",
    "--pod-cidr",
    "10.128.0.0/24",
  ]);
  await eventually(
    async () => ((await elements(machine)) >= services && agent.output() !== "" ? true : undefined),
    { timeoutMs: 120_000, describe: () => agent.output() },
  );
  await systemClock.sleep(restMs, signal);
  const pid = Number((await machine.exec(["pgrep", "-f", `${program} run`])).stdout.split("\n")[0]);
  const { stdout } = await machine.exec(["cat", `/proc/${pid}/smaps_rollup`]);
  const bytes = Number(/^Rss:\s+(\d+) kB/m.exec(stdout)?.[1] ?? Number.NaN) * 1024;
  await agent.signal("TERM");
  await agent.exited;
  await api.signal("TERM");
  return bytes;
}

/** What is resident differs by megabytes from run to run, by when V8 collects: hence several, in turn. */
export async function measureMemory(
  directory: string,
  services: number,
  { restMs, rounds }: { readonly restMs: number; readonly rounds: number },
): Promise<MemoryFigures> {
  const seen: { empty: number; full: number }[] = [];
  for (let turn = 0; turn < rounds; turn += 1) {
    const empty = await measure(directory, 0, restMs);
    seen.push({ empty, full: await measure(directory, services, restMs) });
  }
  const empty = median(seen.map((each) => each.empty));
  const full = median(seen.map((each) => each.full));
  const megabytes = (bytes: number): number => round(bytes / 1e6, 1);
  return {
    services,
    emptyMB: megabytes(empty),
    fullMB: megabytes(full),
    bytesPerService: round((full - empty) / services, 0),
    seenMB: seen.map((each) => ({ empty: megabytes(each.empty), full: megabytes(each.full) })),
  };
}
