import { type Answer, decode, type DecodedPacket, encode, type RecordType } from "dns-packet";

import { ClusterRecords } from "../../../src/dns/cluster-records.ts";
import { askTCP, askUDP } from "../../../src/dns/exchange.ts";
import { Forwarder, type ForwarderOptions } from "../../../src/dns/forwarder.ts";
import { parseDnsService } from "../../../src/dns/parse.ts";
import { Resolver } from "../../../src/dns/resolver.ts";
import { DnsServer } from "../../../src/dns/server.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { freePort } from "../../fakes/name-server.ts";

export const loopback = "127.0.0.1";
let random = 0;
/** Different each time, the same in each run. */
export const nextRandom = (): number => (random = (random + 0.618_034) % 1);

export function a(name: string, data: string, ttl = 300): Answer {
  return { name, type: "A", ttl, data };
}

export const names = {
  web: "web.default.svc.cluster.local",
  far: "far.default.svc.cluster.local",
  alias: "alias.default.svc.cluster.local",
  circle: "circle.default.svc.cluster.local",
} as const;

function clusterRecords(): ClusterRecords {
  const records = new ClusterRecords({
    domain: "cluster.local",
    serverIPs: [loopback],
    ownNetworks: [],
  });
  const service = (name: string, spec: Record<string, unknown>) =>
    parseDnsService({ metadata: { namespace: "default", name }, spec });
  records.apply({
    full: true,
    services: [
      service("web", { clusterIP: "10.96.0.7", clusterIPs: ["10.96.0.7"], ports: [] }),
      service("far", { type: "ExternalName", externalName: "www.example.test" }),
      service("alias", { type: "ExternalName", externalName: names.web }),
      service("circle", { type: "ExternalName", externalName: names.circle }),
    ],
    slices: [],
    removedServices: [],
    removedSlices: [],
    namespaces: ["default"],
  });
  return records;
}

/** For tests with servers that never answer: these are not waited for any longer. */
export const hasty = { tryMs: 150, totalMs: 1000 } as const;

/** A name server on loopback with the cluster of {@link clusterRecords}, asking `upstreams`. */
export class Running implements AsyncDisposable {
  readonly #stop = new AbortController();
  #done: Promise<void> = Promise.resolve();
  port = 0;

  static async start(
    upstreams: ForwarderOptions["servers"],
    more: Partial<ForwarderOptions> = {},
    isOwnQuestion: (name: string) => boolean = () => false,
  ): Promise<Running> {
    const running = new Running();
    running.port = await freePort();
    const forwarder = new Forwarder({
      servers: upstreams,
      clock: systemClock,
      logger: silentLogger,
      random: nextRandom,
      ...more,
    });
    const listening = Promise.withResolvers<void>();
    const server = new DnsServer({
      resolver: new Resolver({ records: clusterRecords(), forwarder, isOwnQuestion }),
      addresses: [loopback],
      port: running.port,
      clock: systemClock,
      logger: silentLogger,
      onListening: listening.resolve,
      retryMs: 5,
    });
    running.#done = server.run(running.#stop.signal).then(() => forwarder.settled());
    await listening.promise;
    return running;
  }

  async ask(
    name: string,
    type: RecordType = "A",
    transport: "udp" | "tcp" = "udp",
  ): Promise<DecodedPacket & { readonly rcode: string }> {
    const message = encode({ type: "query", id: 7, flags: 0x100, questions: [{ name, type }] });
    const outgoing = { message, id: 7, question: message.subarray(12) };
    const server = { address: loopback, port: this.port };
    const ask = transport === "udp" ? askUDP : askTCP;
    const reply = await ask(server, outgoing, AbortSignal.timeout(5000));
    return decode(reply) as DecodedPacket & { readonly rcode: string };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }
}

export function data(packet: DecodedPacket): unknown[] {
  return (packet.answers ?? []).map((answer) => ("data" in answer ? answer.data : undefined));
}

/** Where something listens on loopback. */
export function at({ port }: { readonly port: number }): {
  readonly address: string;
  readonly port: number;
} {
  return { address: loopback, port };
}
