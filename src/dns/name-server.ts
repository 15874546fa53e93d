import { parseCidr } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import { ClusterRecords } from "./cluster-records.ts";
import { SharedCounts } from "./counts.ts";
import type { UpstreamServer } from "./exchange.ts";
import { Forwarder } from "./forwarder.ts";
import { HostServers } from "./host-servers.ts";
import { LoopCheck } from "./loop-check.ts";
import { RecordsKeeper } from "./records-keeper.ts";
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
  /**
   * Until the first full update cluster names are answered from the records file, and with SERVFAIL when there is none.
   */
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
    ...(settings.passed === undefined ? {} : { passed: settings.passed }),
    onListening: () => {
      // Now, not at the first question: a circle is better known before.
      void hostServers.current();
      onListening();
    },
  });
  const keeper =
    settings.recordsFile === undefined
      ? undefined
      : new RecordsKeeper({
          path: settings.recordsFile,
          domain: settings.domain,
          contents: () => records.contents(),
          clock,
          logger,
        });
  let told = false;
  const apply = (update: RecordsUpdate): void => {
    records.apply(update);
    resolver.forget();
  };
  const recall = async (): Promise<void> => {
    const stored = await keeper?.read();
    // Whoever told something meanwhile knows better.
    if (stored === undefined || told) return;
    apply(stored.update);
    logger.log("info", "cluster names are answered from the last records until there are others", {
      services: stored.update.services.length,
      ageSeconds: Math.round((clock.now() - stored.writtenAt) / 1000),
    });
  };
  return {
    apply(update) {
      told = true;
      apply(update);
      keeper?.note();
    },
    async run(signal) {
      const done = new AbortController();
      const either = AbortSignal.any([signal, done.signal]);
      if (!told) await recall();
      // The last records are written while questions are still answered.
      const kept = (keeper?.run(either) ?? aborted(either)).finally(() => stop.abort());
      try {
        await server.run(stop.signal);
      } finally {
        done.abort();
        await Promise.allSettled([...checks, kept, forwarder.settled()]);
      }
    },
  };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
