// Service rules in iptables, for test/bench/proxy.ts: a cold start, and changes beside `iptables-restore` of the same text.
// Everything happens in the network namespace that this process is in.
import { spawnSync } from "node:child_process";
import { monitorEventLoopDelay } from "node:perf_hooks";

import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { Iptables, type IptablesProgram, installedIptables } from "../../src/netfilter/iptables.ts";
import { systemRulesHost } from "../../src/proxy/iptables/apply.ts";
import { IptablesBackend } from "../../src/proxy/iptables/backend.ts";
import { cleanUpIptables } from "../../src/proxy/iptables/cleanup.ts";
import { type PlannedPort, planPort } from "../../src/proxy/plan.ts";
import { median, round } from "./figures.ts";
import { readyEndpoint, rulesContext, servicePort } from "../fakes/service-samples.ts";

const { signal } = new AbortController();

export interface IptablesFigures {
  readonly variant: IptablesProgram["variant"];
  /** Plans in memory until the kernel has them all. */
  readonly coldMs: number;
  readonly coldTransactions: number;
  readonly coldStallMs: number;
  /** One endpoint of one Service replaced, medians. */
  readonly changeMs: number;
  readonly restoreMs: number;
  readonly changeRatio: number;
  readonly changeBytes: number;
  /** A start that finds all rules there. */
  readonly adoptMs: number;
}

function dotted(network: number, id: number): string {
  return `10.${network + (id >> 16)}.${(id >> 8) & 255}.${id & 255}`;
}

function plan(id: number, hosts: readonly number[]): PlannedPort {
  return planPort(
    servicePort({
      key: `bench/service-${id}:http/tcp`,
      service: `bench/service-${id}`,
      clusterIP: dotted(96, id),
      rank: `2026-01-01T00:00:00Z bench/service-${id}`,
    }),
    hosts.map((host) => readyEndpoint(dotted(128, host))),
    { name: "bench", zone: "" },
  );
}

interface Subject {
  readonly backend: IptablesBackend;
  /** Texts that were restored, and emptied by who reads them. */
  readonly texts: string[];
}

/** A backend on one kind of iptables, whichever this machine uses. */
function subject(program: IptablesProgram): Subject {
  const texts: string[] = [];
  class Recorded extends Iptables {
    override restore(text: string, inner: AbortSignal): Promise<void> {
      texts.push(text);
      return super.restore(text, inner);
    }
  }
  const backend = new IptablesBackend({
    context: rulesContext(),
    logger: silentLogger,
    clock: systemClock,
    host: {
      ...systemRulesHost("IPv4", silentLogger),
      open: async () => new Recorded("IPv4", program),
    },
  });
  return { backend, texts };
}

function fill(backend: IptablesBackend, services: number): void {
  for (let id = 0; id < services; id += 1) {
    const one = plan(id, [2 * id, 2 * id + 1]);
    backend.set(one.key, one);
  }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = systemClock.monotonic();
  await work();
  return systemClock.monotonic() - started;
}

function restoreAlone(program: IptablesProgram, text: string): number {
  const started = systemClock.monotonic();
  const { status, stderr } = spawnSync(
    `iptables${program.suffix}-restore`,
    ["-w", "5", "--noflush", "--counters"],
    { input: text },
  );
  if (status !== 0) throw new Error(stderr.toString());
  return systemClock.monotonic() - started;
}

async function measure(
  program: IptablesProgram,
  { cold, services, changes }: { cold: number; services: number; changes: number },
): Promise<IptablesFigures> {
  await cleanUpIptables(signal);
  const first = subject(program);
  fill(first.backend, cold);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  let coldTransactions = 0;
  const coldMs = await timed(async () => {
    coldTransactions = (await first.backend.sync(signal)).transactions;
  });
  delay.disable();

  await cleanUpIptables(signal);
  const { backend, texts } = subject(program);
  fill(backend, services);
  await backend.sync(signal);
  const ours: number[] = [];
  const alone: number[] = [];
  let changeBytes = 0;
  for (let round = 0; round < changes; round += 1) {
    const id = (round * 7919) % services;
    const one = plan(id, [2 * id, 2 * services + round]);
    texts.length = 0;
    backend.set(one.key, one);
    ours.push(await timed(() => backend.sync(signal)));
    const text = texts.join("");
    changeBytes = text.length;
    // Carried out again it changes nothing.
    alone.push(restoreAlone(program, text));
  }
  const second = subject(program);
  for (let id = 0; id < services; id += 1) {
    const one = plan(id, [2 * id, 2 * id + 1]);
    second.backend.set(one.key, one);
  }
  const adoptMs = await timed(() => second.backend.sync(signal));
  await cleanUpIptables(signal);
  const [changeMs, restoreMs] = [median(ours), median(alone)];
  return {
    variant: program.variant,
    coldMs: round(coldMs, 0),
    coldTransactions,
    coldStallMs: round(delay.max / 1e6, 0),
    changeMs: round(changeMs),
    restoreMs: round(restoreMs),
    changeRatio: round(changeMs / restoreMs),
    changeBytes,
    adoptMs: round(adoptMs, 0),
  };
}

/** Figures of every kind of iptables that this machine has. */
export async function measureIptables(sizes: {
  /** Services of the cold start, and while changes are made. */
  readonly cold: number;
  readonly services: number;
  readonly changes: number;
}): Promise<readonly IptablesFigures[]> {
  const found: IptablesFigures[] = [];
  for (const program of await installedIptables(signal)) found.push(await measure(program, sizes));
  return found;
}
