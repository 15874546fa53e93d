import type { AgentConfig } from "../config/types.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { PacketCounters, ProxyMode } from "./backend.ts";
import type { FamilyRules } from "./family-rules.ts";
import { type HealthState, serveHealth } from "./health.ts";
import type { ProxyMetrics } from "./metrics.ts";
import { type MetricsPages, serveMetrics } from "./metrics-server.ts";

/** What the metrics port says about the program besides its Service rules. */
export interface ProgramPages extends Pick<
  MetricsPages,
  "configuration" | "flags" | "binaryVersion"
> {
  /** Samples of other families for `/metrics`. */
  readonly moreMetrics?: () => string;
}

export interface OwnServersOptions {
  readonly config: Pick<
    AgentConfig,
    | "bindAddress"
    | "proxyHealthzPort"
    | "proxyHealthzAddress"
    | "proxyMetricsPort"
    | "proxyMetricsAddress"
  > &
    Partial<Pick<AgentConfig, "proxy" | "proxyKubeconfig">>;
  readonly state: HealthState;
  readonly metrics: ProxyMetrics;
  readonly families: readonly FamilyRules[];
  /** For who wants to compare the kernel with what should be there. */
  readonly node: () => {
    readonly nodeName: string;
    readonly nodeIPs: readonly string[];
    readonly table: string;
    readonly keepsSource: boolean;
  };
  readonly pages: ProgramPages | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Serves the proxy's health and metrics ports until `signal` aborts.
 *
 * @throws {SetupError} when a port is taken and `bindAddressHardFail` is set.
 */
export async function runOwnServers(
  options: OwnServersOptions,
  signal: AbortSignal,
): Promise<void> {
  const { clock, config, families, logger, metrics, node, pages, state } = options;
  const retry = config.proxy?.bindAddressHardFail === true ? undefined : { clock, logger };
  const mode = (): ProxyMode => families[0]?.mode ?? "nftables";
  const health = {
    address: config.proxyHealthzAddress ?? config.bindAddress,
    port: config.proxyHealthzPort,
    retry,
    state,
    clock,
    metrics,
  };
  await Promise.all([
    serveHealth(health, signal),
    serveMetrics(
      { address: config.proxyMetricsAddress, port: config.proxyMetricsPort, retry },
      {
        ...pages,
        metrics: async () =>
          `${await rendered(metrics, families, signal)}${pages?.moreMetrics?.() ?? ""}`,
        mode,
        facts: () => ({
          ...node(),
          kubeconfig: config.proxyKubeconfig ?? "",
          externalIPs: config.proxy?.externalIPs ?? true,
          mode: mode(),
          families: families.map(({ context }) => context),
        }),
        clock,
      },
      signal,
    ),
  ]);
}

async function rendered(
  metrics: ProxyMetrics,
  families: readonly FamilyRules[],
  signal: AbortSignal,
): Promise<string> {
  metrics.packetsCounted(
    sumOf(await Promise.all(families.map((rules) => rules.packetCounters(signal)))),
  );
  for (const rules of families) {
    const { internal, external } = rules.noLocalEndpoints();
    metrics.noLocalEndpoints(rules.family, internal, external);
  }
  return metrics.render();
}

function sumOf(counted: readonly PacketCounters[]): PacketCounters {
  const sum = (name: keyof PacketCounters): number | undefined => {
    const known = counted.flatMap((counters) => counters[name] ?? []);
    return known.length === 0 ? undefined : known.reduce((total, value) => total + value, 0);
  };
  return { invalidDropped: sum("invalidDropped"), localhostNodePorts: sum("localhostNodePorts") };
}
