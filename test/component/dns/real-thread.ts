import { startDnsThread } from "../../../src/agent/dns-thread.ts";
import { type NameServerCounts, SharedCounts } from "../../../src/dns/counts.ts";
import { parseDnsService } from "../../../src/dns/parse.ts";
import type { NameServerSettings, RecordsUpdate } from "../../../src/dns/types.ts";
import type { Fields, Logger } from "../../../src/lib/log.ts";

/** The only Service of {@link oneService}. */
export const name = "web.default.svc.cluster.local";

/** Everything there is in a cluster with one Service. */
export function oneService(clusterIP: string): RecordsUpdate {
  const metadata = { namespace: "default", name: "web" };
  return {
    full: true,
    services: [parseDnsService({ metadata, spec: { clusterIP } })],
    slices: [],
    removedServices: [],
    removedSlices: [],
    namespaces: ["default"],
  };
}

/** The name server's real thread on loopback. */
export class RealThread implements AsyncDisposable {
  readonly port: number;
  readonly logged: { readonly msg: string; readonly fields: Fields | undefined }[] = [];
  /** Resolves when it answers. */
  readonly listening: Promise<void>;
  readonly #counts = new SharedCounts();
  readonly #thread: ReturnType<typeof startDnsThread>;

  constructor(port: number, more: Partial<NameServerSettings>, tell?: RecordsUpdate) {
    this.port = port;
    const settings: NameServerSettings = {
      domain: "cluster.local",
      addresses: ["127.0.0.1"],
      port,
      ownNetworks: [],
      resolvConf: "",
      counts: this.#counts.buffer,
      ...more,
    };
    const logger: Logger = {
      log: (_level, msg, fields) => this.logged.push({ msg, fields }),
      child: () => logger,
    };
    const { promise, resolve } = Promise.withResolvers<void>();
    this.listening = promise;
    this.#thread = startDnsThread({ settings, logger, onListening: resolve });
    if (tell !== undefined) this.tell(tell);
  }

  tell(update: RecordsUpdate): void {
    this.#thread.send({ kind: "records", update });
  }

  get counts(): NameServerCounts {
    return this.#counts.read();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#thread.stop();
  }
}
