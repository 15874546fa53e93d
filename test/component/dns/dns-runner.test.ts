import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { encode } from "dns-packet";

import { dnsRunner, type DnsRunnerOptions } from "../../../src/agent/dns-runner.ts";
import { startDnsThread } from "../../../src/agent/dns-thread.ts";
import { ObjectCache } from "../../../src/api/object-cache.ts";
import type { Informer } from "../../../src/api/informer-types.ts";
import { informerView } from "../../../src/api/informer-view.ts";
import { nodeDnsProxyName } from "../../../src/dns/decide.ts";
import { askUDP } from "../../../src/dns/exchange.ts";
import { parseDnsService, parseDnsSlice, proxyNameLabel } from "../../../src/dns/parse.ts";
import type { DnsService, DnsSlice } from "../../../src/dns/types.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { freePort } from "../../fakes/name-server.ts";
import { FakeThread } from "./fake-thread.ts";

const address = "10.96.0.10";

/** An informer that holds what it is told. */
class FakeInformer<T extends { readonly key: string }> implements Informer<T> {
  readonly #cache = new ObjectCache<T>((error) => {
    throw error;
  });
  readonly #sync = Promise.withResolvers<void>();
  #version = 0;
  synced = false;
  /** How often all were asked for. */
  walks = 0;

  set(object: T): void {
    this.#version += 1;
    const state = { key: object.key, uid: object.key, resourceVersion: String(this.#version) };
    this.#cache.upsert({ state, object });
  }

  delete(key: string): void {
    this.#cache.remove({ key, uid: key });
  }

  sync(): void {
    this.synced = true;
    this.#sync.resolve();
  }

  get size(): number {
    return this.#cache.size;
  }

  get(key: string): T | undefined {
    return this.#cache.get(key);
  }

  values(): IterableIterator<T> {
    this.walks += 1;
    return this.#cache.values();
  }

  subscribe(listener: Parameters<Informer<T>["subscribe"]>[0]): () => void {
    return this.#cache.subscribe(listener);
  }

  async run(): Promise<void> {
    return Promise.resolve();
  }

  whenSynced(): Promise<void> {
    return this.#sync.promise;
  }
}

function nameService(labelled: boolean): DnsService {
  const labels = labelled ? { [proxyNameLabel]: nodeDnsProxyName } : {};
  return parseDnsService({
    metadata: { namespace: "kube-system", name: "kube-dns", labels },
    spec: { clusterIP: address, clusterIPs: [address] },
  });
}

function service(name: string, ip: string): DnsService {
  const metadata = { namespace: "default", name };
  return parseDnsService({ metadata, spec: { clusterIP: ip, clusterIPs: [ip] } });
}

function slice(name: string, of: string, ready = true): DnsSlice {
  const [namespace = "", owner = ""] = of.split("/");
  return parseDnsSlice({
    metadata: { namespace, name, labels: { "kubernetes.io/service-name": owner } },
    addressType: "IPv4",
    endpoints: [{ addresses: ["10.244.0.5"], conditions: { ready } }],
  });
}

class Fixture implements AsyncDisposable {
  readonly services = new FakeInformer<DnsService>();
  readonly slices = new FakeInformer<DnsSlice>();
  readonly threads: FakeThread[] = [];
  readonly placed: string[] = [];
  readonly events: string[] = [];
  /** What is kept in mind for the next start, in order. */
  readonly kept: (readonly string[])[] = [];
  names: readonly string[] | "unknown" | undefined = ["default"];
  placeFailures = 0;
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;

  /** @param remembered Where the name server answered when the agent ended; undefined = nobody knows. */
  constructor(
    dns: NonNullable<DnsRunnerOptions["config"]["dns"]> = "auto",
    remembered?: readonly string[],
  ) {
    const remember = async (settings: { readonly addresses: readonly string[] } | undefined) => {
      this.kept.push(settings?.addresses ?? []);
    };
    const life = {
      remembered: remembered ?? [],
      remember,
      dropEarly: async () => undefined,
      forget: () => remember(undefined),
    };
    const runner = dnsRunner({
      ...(remembered === undefined ? {} : { life }),
      config: {
        nodeName: "node1",
        dns,
        clusterDNS: [address],
        clusterDomain: "cluster.local",
        clusterCIDRs: ["10.244.0.0/16"],
        serviceCIDRs: ["10.96.0.0/16"],
        podCIDRs: [],
        resolvConf: "/etc/resolv.conf",
      },
      services: this.services,
      slices: this.slices,
      namespaces: () => ({ names: () => this.names, run: async () => undefined }),
      network: {
        setLocalAddresses: async (addresses) => {
          this.placeFailures -= 1;
          if (this.placeFailures >= 0) throw new Error("no bridge");
          this.placed.push(addresses.join(" "));
        },
      },
      startThread: (options) => {
        const thread = new FakeThread(options);
        this.threads.push(thread);
        return thread;
      },
      events: { event: (_target, _type, reason) => this.events.push(reason) },
      // Back-offs cost nothing.
      clock: { ...systemClock, sleep: (_ms, signal) => systemClock.sleep(0, signal) },
      logger: silentLogger,
      random: () => 0.5,
    });
    this.#done = runner.run(this.#stop.signal);
  }

  sync(): void {
    this.services.sync();
    this.slices.sync();
  }

  async until(check: () => boolean): Promise<void> {
    for (let turn = 0; !check(); turn += 1) {
      assert.ok(turn < 500, "did not happen");
      await systemClock.sleep(1, this.#stop.signal);
    }
  }

  /** Long enough for anything that was going to happen. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 5; turn += 1) await systemClock.sleep(0, this.#stop.signal);
  }

  get thread(): FakeThread {
    const thread = this.threads.at(-1);
    assert.ok(thread !== undefined);
    return thread;
  }

  async end(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    for (const thread of this.threads) await thread.ended;
  }
}

describe("DNS on the node", () => {
  it("waits for the cluster's word, then answers with everything there is", async () => {
    await using fixture = new Fixture();
    fixture.services.set(nameService(true));
    fixture.slices.set(slice("web-1", "default/web"));
    await fixture.settle();
    assert.equal(fixture.threads.length, 0);
    fixture.sync();
    await fixture.until(() => fixture.threads[0]?.updates.length === 1);
    assert.deepEqual(fixture.placed, [address]);
    assert.deepEqual(fixture.thread.settings.addresses, [address]);
    const [update] = fixture.thread.updates;
    assert.ok(update?.full);
    assert.deepEqual(
      [update.services.length, update.slices.length, update.namespaces],
      [1, 1, ["default"]],
    );
  });

  it("tells what changed, and only that", async () => {
    await using fixture = new Fixture();
    fixture.services.set(nameService(true));
    fixture.sync();
    await fixture.until(() => fixture.threads[0]?.updates.length === 1);
    await fixture.settle();
    const { walks } = fixture.services;
    fixture.services.set(service("web", "10.96.0.7"));
    fixture.slices.set(slice("web-1", "default/web"));
    await fixture.until(() => fixture.thread.updates.length === 2);
    const change = fixture.thread.updates[1];
    assert.deepEqual(
      [change?.full, change?.services.map(({ key }) => key), change?.slices.map(({ key }) => key)],
      [false, ["default/web"], ["default/web-1"]],
    );
    // The same once more, as a slice of which only an annotation changed.
    fixture.slices.set(slice("web-1", "default/web"));
    await fixture.settle();
    assert.equal(fixture.thread.updates.length, 2);
    fixture.services.delete("default/web");
    await fixture.until(() => fixture.thread.updates.length === 3);
    assert.deepEqual(fixture.thread.updates[2]?.removedServices, ["default/web"]);
    assert.equal(fixture.services.walks, walks, "nobody walks over all Services for one");
  });

  it("starts a thread that died again, with everything", async () => {
    await using fixture = new Fixture();
    fixture.services.set(nameService(true));
    fixture.sync();
    await fixture.until(() => fixture.threads[0]?.updates.length === 1);
    fixture.thread.crash();
    await fixture.until(() => fixture.threads[1]?.updates.length === 1);
    assert.equal(fixture.thread.updates[0]?.full, true);
    assert.deepEqual(fixture.placed, [address]);
  });

  it("gives the address up when the Service is given to pods, and takes it again", async () => {
    await using fixture = new Fixture();
    fixture.services.set(nameService(true));
    fixture.sync();
    await fixture.until(() => fixture.threads.length === 1);
    fixture.services.set(nameService(false));
    await fixture.until(() => fixture.placed.length === 2);
    assert.ok(fixture.thread.stopped);
    assert.deepEqual(fixture.placed, [address, ""]);
    fixture.services.set(nameService(true));
    await fixture.until(() => fixture.threads[1]?.updates.length === 1);
  });

  it("never takes an address that pods answer, and says so when told to", async () => {
    await using auto = new Fixture();
    auto.services.set(nameService(false));
    auto.sync();
    await using local = new Fixture("local");
    local.services.set(nameService(false));
    local.slices.set(slice("kube-dns-1", "kube-system/kube-dns"));
    // Nothing is known yet, so it starts; what it learns then ends it.
    local.sync();
    await local.until(() => local.events.length === 1);
    await local.settle();
    assert.deepEqual(local.events, ["NodeDNSNotServed"]);
    assert.ok(local.threads.every(({ stopped }) => stopped));
    assert.deepEqual([auto.threads.length, auto.placed, auto.events], [0, [], []]);
    local.slices.set(slice("kube-dns-1", "kube-system/kube-dns", false));
    await local.until(() => local.threads.some(({ stopped }) => !stopped));
  });

  it("answers without the API server when told to, but denies nothing", async () => {
    await using fixture = new Fixture("local");
    await fixture.until(() => fixture.threads.length === 1);
    await fixture.settle();
    assert.deepEqual(fixture.thread.updates, []);
    fixture.sync();
    await fixture.until(() => fixture.thread.updates.length === 1);
  });

  it("goes on as before while the API server cannot be asked, and as it says afterwards", async () => {
    const fixture = new Fixture("auto", [address]);
    await fixture.until(() => fixture.threads.length === 1 && fixture.placed.length === 1);
    assert.deepEqual(fixture.placed, [address]);
    assert.deepEqual([fixture.thread.updates, fixture.kept], [[], []]);
    fixture.services.set(nameService(true));
    fixture.sync();
    await fixture.until(() => fixture.thread.updates.length === 1);
    assert.deepEqual([fixture.threads.length, fixture.kept], [1, [[address]]]);
    // Whoever asks is answered until the agent has ended, not only this part of it.
    await fixture.end();
    assert.equal(fixture.thread.stopped, false);
    await fixture.thread.stop();
  });

  it("does not go on at an address that is not the cluster's any more", async () => {
    await using fixture = new Fixture("auto", ["10.96.0.99"]);
    await fixture.settle();
    assert.deepEqual([fixture.threads.length, fixture.placed], [0, []]);
    fixture.services.set(nameService(false));
    fixture.sync();
    await fixture.until(() => fixture.kept.length > 0);
    assert.deepEqual([fixture.threads.length, fixture.kept[0]], [0, []]);
  });

  it("ends what went on when the Service was given to pods meanwhile", async () => {
    await using fixture = new Fixture("auto", [address]);
    await fixture.until(() => fixture.threads.length === 1);
    fixture.services.set(nameService(false));
    fixture.sync();
    await fixture.until(() => fixture.thread.stopped && fixture.kept.length > 0);
    assert.deepEqual([fixture.placed, fixture.kept], [[address, ""], [[]]]);
  });

  it("tells thousands of Services in parts, and what changes meanwhile afterwards", async () => {
    await using fixture = new Fixture();
    fixture.services.set(nameService(true));
    for (let index = 0; index < 1700; index += 1) {
      fixture.services.set(service(`s${index}`, "10.96.0.7"));
      fixture.slices.set(slice(`s${index}-1`, `default/s${index}`));
    }
    fixture.sync();
    await fixture.until(() => (fixture.threads[0]?.updates.length ?? 0) > 0);
    fixture.services.delete("default/s0");
    await fixture.until(() => fixture.thread.updates.some(({ full }) => !full));
    const parts = fixture.thread.updates.filter(({ full }) => full);
    const sizes = parts.map(({ services, slices }) => services.length + slices.length);
    assert.ok(parts.length > 5 && sizes.every((size) => size <= 1000), sizes.join());
    assert.deepEqual(
      fixture.thread.updates.map(({ namespaces }) => namespaces !== undefined),
      fixture.thread.updates.map((_, index) => index === parts.length - 1),
    );
    const services = new Set(parts.flatMap((part) => part.services.map(({ key }) => key)));
    const slices = new Set(parts.flatMap((part) => part.slices.map(({ key }) => key)));
    assert.equal(slices.size, 1700);
    assert.ok(services.size >= 1700);
    assert.deepEqual(fixture.thread.updates.at(-1)?.removedServices, ["default/s0"]);
  });

  it("off is off", async () => {
    await using fixture = new Fixture("off");
    fixture.services.set(nameService(true));
    fixture.sync();
    await fixture.settle();
    assert.deepEqual([fixture.threads.length, fixture.placed], [0, []]);
  });

  it("tries again when the address cannot be set", async () => {
    await using fixture = new Fixture();
    fixture.placeFailures = 3;
    fixture.services.set(nameService(true));
    fixture.sync();
    await fixture.until(() => fixture.threads.length === 1);
    assert.deepEqual(fixture.placed, [address]);
  });
});

describe("the name server's thread", () => {
  it("answers from what it is told, and ends when asked", async () => {
    const port = await freePort();
    const listening = Promise.withResolvers<void>();
    const thread = startDnsThread({
      settings: {
        domain: "cluster.local",
        addresses: ["127.0.0.1"],
        port,
        ownNetworks: [],
        resolvConf: "",
      },
      logger: silentLogger,
      onListening: listening.resolve,
    });
    thread.send({
      kind: "records",
      update: {
        full: true,
        services: [service("web", "10.96.0.7")],
        slices: [],
        removedServices: [],
        removedSlices: [],
        namespaces: "unknown",
      },
    });
    await listening.promise;
    const name = "web.default.svc.cluster.local";
    const message = encode({ type: "query", id: 3, questions: [{ name, type: "A" }] });
    const reply = await askUDP(
      { address: "127.0.0.1", port },
      { message, id: 3, question: message.subarray(12) },
      AbortSignal.timeout(5000),
    );
    assert.ok(reply.includes(Buffer.from([10, 96, 0, 7])));
    await thread.stop();
    assert.equal(await thread.ended, undefined);
  });
});

describe("a thread that dies", () => {
  it("says why", async () => {
    const thread = startDnsThread({
      settings: {
        domain: "cluster.local",
        addresses: ["127.0.0.1"],
        port: 0,
        ownNetworks: ["no network"],
        resolvConf: "",
      },
      logger: silentLogger,
      onListening: () => undefined,
    });
    assert.match((await thread.ended)?.message ?? "", /expected a CIDR/);
    // Whoever stops it afterwards does not wait.
    await thread.stop();
  });
});

describe("a view of an informer", () => {
  it("shows a part, and turns changes of the whole into changes of the part", () => {
    const whole = new FakeInformer<DnsService>();
    const view = informerView(whole, (it) => (it.proxyName === "" ? it.name : undefined));
    const seen: string[] = [];
    whole.set(nameService(false));
    const end = view.subscribe(({ kind, key }) => seen.push(`${kind} ${key}`));
    whole.set(nameService(true));
    whole.set(nameService(true));
    assert.deepEqual([view.size, view.get("kube-system/kube-dns")], [0, undefined]);
    whole.set(nameService(false));
    whole.set(nameService(false));
    assert.deepEqual([...view.values()], ["kube-dns"]);
    whole.delete("kube-system/kube-dns");
    end();
    whole.set(nameService(false));
    const key = "kube-system/kube-dns";
    assert.deepEqual(
      seen,
      ["added", "deleted", "added", "updated", "deleted"].map((kind) => `${kind} ${key}`),
    );
  });
});
