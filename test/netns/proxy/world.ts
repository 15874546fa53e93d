import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";

import { ENDPOINT_SLICES, NODES, SERVICES } from "../../../src/api/resources.ts";
import { proxyDefaults } from "../../../src/config/agent-config.ts";
import type { ProxySettings } from "../../../src/config/types.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { jsonLogger } from "../../../src/lib/log.ts";
import type { ProxyMode } from "../../../src/proxy/backend.ts";
import { createProxy } from "../../../src/proxy/proxy.ts";
import type { ProxyOptions } from "../../../src/proxy/proxy-options.ts";
import { type FakeApiServer, startFakeApiServer } from "../../fakes/api-server.ts";
import { sh } from "../namespace.ts";
import { type Addresses, families } from "./addresses.ts";
import type { Peer } from "./peer.ts";
import { serviceObject, sliceObject } from "./objects.ts";
import { bothFamilies, Topology } from "./topology.ts";

export const zone = "zone-1";

/** A node with pods, neighbours, an API server, and the proxy under test. */
export class World {
  readonly mode: ProxyMode;
  readonly topology = new Topology();
  /** What the proxy logged, newest last. */
  readonly log: string[] = [];
  /** Reasons of the events it wrote. */
  readonly events: string[] = [];
  /** Who tells the proxy the node's addresses while it runs; default nobody. */
  node: ProxyOptions["node"];
  #api: FakeApiServer | undefined;
  #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #numbers = 0;
  #clients = 0;
  #nodePorts = 30_000;

  constructor(mode: ProxyMode) {
    this.mode = mode;
  }

  get api(): FakeApiServer {
    assert.ok(this.#api !== undefined);
    return this.#api;
  }

  get peers(): Readonly<Record<"node" | "a" | "b" | "c" | "remote" | "client", Peer>> {
    return this.topology.peers;
  }

  /** A number that nobody else in this world gets. */
  takeNumber(): number {
    this.#numbers += 1;
    return this.#numbers;
  }

  /** The first of four node ports that nobody else gets. */
  takeNodePorts(): number {
    this.#nodePorts += 4;
    return this.#nodePorts;
  }

  /** The number of an address that no other case's client has. */
  takeClient(): number {
    this.#clients += 1;
    return this.#clients;
  }

  async setUp(): Promise<void> {
    this.#api = await startFakeApiServer();
    await this.topology.setUp();
    this.putNode();
    await this.start();
  }

  /** The own Node as the cluster has it. */
  putNode(
    labels: Readonly<Record<string, string>> = { "topology.kubernetes.io/zone": zone },
  ): void {
    this.api.put(NODES, { metadata: { name: "here", labels } });
  }

  /** Starts the proxy and waits until the rules of both families are those of the API. */
  async start(settings: Partial<ProxySettings> = {}): Promise<void> {
    this.launch(settings);
    await Promise.all(bothFamilies.map((addresses) => this.settled(addresses)));
  }

  /** Starts the proxy and returns at once. */
  launch(settings: Partial<ProxySettings> = {}): void {
    this.#stop = new AbortController();
    const proxy = createProxy({
      config: {
        clusterCIDRs: ["10.244.0.0/16", "fd00:244::/48"],
        bindAddress: "0.0.0.0",
        proxyHealthzPort: 10_256,
        proxyMetricsPort: 10_249,
        proxy: { ...proxyDefaults, mode: this.mode, ...settings },
      },
      client: this.api.client,
      nodeName: "here",
      nodeIPs: [families.IPv4.node, families.IPv6.node],
      ...(this.node === undefined ? {} : { node: this.node }),
      clock: systemClock,
      logger: jsonLogger({
        level: "debug",
        now: () => systemClock.now(),
        write: (line) => {
          this.log.push(line.trimEnd());
          if (process.env["VERBOSE"] !== undefined) process.stderr.write(line);
        },
      }),
      random: Math.random,
      events: {
        event: (_object, _type, reason) => {
          this.events.push(reason);
        },
      },
    });
    this.#running = proxy.run(this.#stop.signal);
    this.#running.catch((error: unknown) => {
      this.log.push(`the proxy ended: ${String(error)}`);
    });
  }

  /** Ends the proxy; its rules stay. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async restart(settings: Partial<ProxySettings> = {}): Promise<void> {
    await this.stop();
    await this.start(settings);
  }

  /** Runs `body` with a proxy that has other settings. */
  async withSettings(settings: Partial<ProxySettings>, body: () => Promise<void>): Promise<void> {
    await this.restart(settings);
    try {
      await body();
    } finally {
      await this.restart();
    }
  }

  /**
   * Waits until all that was written to the API so far is in the rules: a Service written after it is. Watches keep the
   * order of their resource.
   */
  async settled(addresses: Addresses): Promise<void> {
    const number = this.takeNumber();
    const name = `marker-${number}`;
    const ip = addresses.clusterIP(number);
    const slice = sliceObject(name, addresses, { targets: ["a"], ports: ["t"] });
    this.api.put(ENDPOINT_SLICES, slice);
    this.api.put(SERVICES, serviceObject(name, addresses, { clusterIP: ip, ports: ["t"] }));
    try {
      await eventually(
        async () => {
          const options = { timeoutMs: 100 };
          const [answer = ""] = await this.peers.node.ask("tcp", `${ip}:80`, options);
          return answer.startsWith("a ");
        },
        "the proxy follows the API",
        { seconds: 10, everyMs: 5 },
      ).catch((error: unknown) => {
        throw new Error(`${String(error)}\n${this.log.slice(-8).join("\n")}`);
      });
    } finally {
      this.api.remove(SERVICES, `default/${name}`);
      this.api.remove(ENDPOINT_SLICES, `default/${slice.metadata?.name ?? ""}`);
    }
  }

  /** All rules of one family that are written by this mode, as text. */
  async rules({ family }: Addresses): Promise<string> {
    if (this.mode === "nftables") {
      return sh("nft", "list", "table", family === "IPv4" ? "ip" : "ip6", "remora-proxy");
    }
    return sh(family === "IPv4" ? "iptables-save" : "ip6tables-save");
  }

  async metrics(): Promise<string> {
    return (await fetch("http://127.0.0.1:10249/metrics")).text();
  }

  /** One number of the metrics; 0 when there is none. */
  async metric(name: string, { family }: Addresses): Promise<number> {
    const line = new RegExp(`^${name}\\{ip_family="${family}"\\} (\\S+)$`, "m");
    return Number(line.exec(await this.metrics())?.[1] ?? 0);
  }

  async tearDown(): Promise<void> {
    this.#stop.abort();
    await this.#running.catch(() => undefined);
    await this.topology.tearDown();
    await this.#api?.close();
  }
}

/** Waits until `probe` holds. */
export async function eventually(
  probe: () => Promise<boolean>,
  what: string,
  { seconds = 2, everyMs = 25 }: { readonly seconds?: number; readonly everyMs?: number } = {},
): Promise<void> {
  const end = performance.now() + seconds * 1000;
  for (;;) {
    if (await probe()) return;
    if (performance.now() > end) assert.fail(`not within ${seconds} s: ${what}`);
    await delay(everyMs);
  }
}
