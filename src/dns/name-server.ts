import { parseCidr } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import { ClusterRecords } from "./cluster-records.ts";
import { SharedCounts } from "./counts.ts";
import type { UpstreamServer } from "./exchange.ts";
import { Forwarder } from "./forwarder.ts";
import { HostServers } from "./host-servers.ts";
import { LoopCheck } from "./loop-check.ts";
import { Resolver } from "./resolver.ts";
import { DnsServer } from "./server.ts";
import type { NameServerSettings, RecordsUpdate } from "./types.ts";

export interface NameServerOptions {
  readonly settings: NameServerSettings;
  readonly clock: Clock;
  readonly logger: Logger;
  /** [0, 1), not to be guessed. */
  readonly random: () => number;
  readonly onListening: () => void;
}

export interface NameServer {
  /** Until the first full update questions for cluster names are answered with SERVFAIL. */
  apply(update: RecordsUpdate): void;
  /** Answers until `signal` aborts and everything is closed. */
  run(signal: AbortSignal): Promise<void>;
}

/** The cluster's name server: cluster names from what it is told, all others from the host's name servers. */
export function createNameServer(options: NameServerOptions): NameServer {
  const { settings, clock, logger, random, onListening } = options;
  const stop = new AbortController();
  const shared = settings.counts === undefined ? undefined : new SharedCounts(settings.counts);
  const counts = shared === undefined ? {} : { counts: shared };
  const records = new ClusterRecords({
    domain: settings.domain,
    serverIPs: settings.addresses,
    ownNetworks: settings.ownNetworks.map((text) => parseCidr(text, "own network")),
  });
  const loops = new LoopCheck({
    logger,
    random,
    onLoop: (address) => hostServers.exclude(address),
  });
  const checks = new Set<Promise<void>>();
  const checkLoops = (servers: readonly UpstreamServer[]): void => {
    const check = loops.check(servers, stop.signal).finally(() => checks.delete(check));
    checks.add(check);
  };
  const hostServers = new HostServers({
    resolvConf: settings.resolvConf,
    ownIPs: settings.addresses,
    clock,
    logger,
    onChange: (servers) => {
      forwarder.forget();
      checkLoops(servers);
    },
  });
  const forwarder = new Forwarder({
    servers: () => hostServers.current(),
    asking: () => hostServers.asking(),
    clock,
    logger,
    random,
    // A circle that was closed later looks like a server that does not answer.
    onSuspect: (suspected) => checkLoops([suspected]),
    count: (event) => shared?.add(event),
    onAnswered: (seconds) => shared?.addUpstream(seconds),
  });
  const resolver = new Resolver({
    records,
    forwarder,
    isOwnQuestion: (name) => loops.recognise(name),
    ...counts,
  });
  const server = new DnsServer({
    resolver,
    addresses: settings.addresses,
    port: settings.port,
    clock,
    logger,
    onUnsent: () => resolver.leaveReplies(),
    ...counts,
    ...(settings.sourceLimits === undefined ? {} : { sourceLimits: settings.sourceLimits }),
    onListening: () => {
      // Now, not at the first question: a circle is better known before.
      void hostServers.current();
      onListening();
    },
  });
  return {
    apply(update) {
      records.apply(update);
      resolver.forget();
    },
    async run(signal) {
      const end = (): void => stop.abort(signal.reason);
      signal.addEventListener("abort", end, { once: true });
      if (signal.aborted) end();
      try {
        await server.run(stop.signal);
      } finally {
        signal.removeEventListener("abort", end);
        stop.abort();
        await Promise.allSettled([...checks, forwarder.settled()]);
      }
    },
  };
}
