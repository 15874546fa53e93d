// npm run bench -- volumes [--quick]: how fast a change of a ConfigMap reaches the files of all pods that show it, what
// projected volumes add to the start of a pod, and how many watches they take. Needs root: it makes a machine of
// namespaces with its own dockerd.
import { loadavg } from "node:os";

import { root } from "../e2e/lib/machine.ts";
import { withAgent } from "./bundle.ts";
import { median, quantile, round, spread } from "./figures.ts";
import type { VolumesOptions, VolumesResult } from "./volumes-load.ts";

const full: VolumesOptions = { pods: 100, volumes: 5, updates: 40, pairs: 60 };
const quick: VolumesOptions = { pods: 30, volumes: 5, updates: 10, pairs: 15 };

function line(what: string, text: string): void {
  process.stdout.write(`${what.padEnd(44)} ${text}\n`);
}

function report({ pods, volumes }: VolumesOptions, result: VolumesResult): void {
  const { firstMs, lastMs, plainMs, withVolumesMs, agentCpuMs } = result;
  line(`PATCH -> first of ${pods * volumes} files`, spread(firstMs, 0));
  line(`PATCH -> last of ${pods * volumes} files`, spread(lastMs, 0));
  line("CPU of the agent for each PATCH", `median ${round(median(agentCpuMs), 0)} ms`);
  line("create -> Ready, plain", spread(plainMs, 0));
  line(`create -> Ready, ${volumes} projected volumes`, spread(withVolumesMs, 0));
  line("watches of ConfigMaps and Secrets", `${result.watches} for ${result.objects} objects`);
  line(
    "load average (1, 5, 15 min)",
    loadavg()
      .map((value) => round(value))
      .join(" "),
  );
  const over = withVolumesMs.map((value, at) => value - (plainMs[at] ?? Number.NaN));
  const json = {
    update_p50_ms: round(median(lastMs), 0),
    update_p99_ms: round(quantile(lastMs, 0.99), 0),
    pod_5vol_over_plain_ms: round(median(withVolumesMs) - median(plainMs), 1),
    pod_5vol_over_plain_paired_ms: round(median(over), 1),
    watches: result.watches,
    objects: result.objects,
    sockets: result.sockets,
    pods,
  };
  process.stdout.write(`${JSON.stringify(json)}\n`);
}

/** Runs it all; `argv` are the words after the benchmark's name. */
export async function benchVolumes(argv: readonly string[]): Promise<void> {
  const options = argv.includes("--quick") ? quick : full;
  await withAgent("vol", async (machine, pid) => {
    const load = [
      process.execPath,
      `${root}/test/bench/volumes-load.ts`,
      "/run/home/.kube/config",
      "/var/lib/remora/kubelet",
      String(pid),
      JSON.stringify(options),
    ];
    const { stderr, stdout } = await machine.exec(load, { timeoutMs: 800_000 });
    process.stderr.write(stderr);
    const text = stdout.trimEnd().split("\n").at(-1) ?? "";
    report(options, JSON.parse(text) as VolumesResult);
  });
}
