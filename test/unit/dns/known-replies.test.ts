import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { decode, encode } from "dns-packet";

import { ClusterRecords } from "../../../src/dns/cluster-records.ts";
import { KnownReplies } from "../../../src/dns/known-replies.ts";
import { parseDnsService, parseDnsSlice } from "../../../src/dns/parse.ts";
import { Resolver } from "../../../src/dns/resolver.ts";

const { signal } = new AbortController();

function question(name: string, type: "A" | "AAAA" | "SRV" = "A", id = 7): Buffer {
  return encode({ type: "query", id, flags: 0x100, questions: [{ name, type }] });
}

/** Records that count how often they are asked. */
class Counted extends ClusterRecords {
  asked = 0;

  override lookup(name: string, type: string): ReturnType<ClusterRecords["lookup"]> {
    this.asked += 1;
    return super.lookup(name, type);
  }
}

function slice(...ips: string[]): ReturnType<typeof parseDnsSlice> {
  return parseDnsSlice({
    metadata: {
      namespace: "default",
      name: "many-1",
      labels: { "kubernetes.io/service-name": "many" },
    },
    addressType: "IPv4",
    ports: [{ name: "http", port: 80 }],
    endpoints: ips.map((ip) => ({ addresses: [ip], conditions: { ready: true } })),
  });
}

function cluster(...ips: string[]): { readonly records: Counted; readonly resolver: Resolver } {
  const records = new Counted({ domain: "cluster.local", serverIPs: [], ownNetworks: [] });
  const service = (name: string, clusterIP: string) =>
    parseDnsService({ metadata: { namespace: "default", name }, spec: { clusterIP } });
  records.apply({
    full: true,
    services: [service("web", "10.96.0.7"), service("many", "None")],
    slices: [slice(...ips)],
    removedServices: [],
    removedSlices: [],
    namespaces: ["default"],
  });
  const forwarder = { cached: () => undefined, forward: () => Promise.resolve(undefined) };
  return { records, resolver: new Resolver({ records, forwarder }) };
}

function ask(resolver: Resolver, message: Buffer, transport: "udp" | "tcp" = "udp"): Buffer {
  const reply = resolver.answer(message, transport, signal);
  assert.ok(Buffer.isBuffer(reply));
  return Buffer.from(reply);
}

const byText = (a: string, b: string): number => (a < b ? -1 : 1);

function addresses(reply: Buffer): readonly string[] {
  const answers = decode(reply).answers ?? [];
  return answers.flatMap((answer) => (answer.type === "A" ? [answer.data] : []));
}

describe("replies that are at hand", () => {
  it("are the same bytes under another id", () => {
    const { records, resolver } = cluster();
    for (const name of ["web.default.svc.cluster.local", "no.default.svc.cluster.local"]) {
      ask(resolver, question(name));
      const first = ask(resolver, question(name, "A", 7));
      const { asked } = records;
      const second = ask(resolver, question(name, "A", 0xabcd));
      assert.equal(records.asked, asked, name);
      assert.equal(second.readUInt16BE(0), 0xabcd);
      assert.deepEqual(second.subarray(2), first.subarray(2));
    }
  });

  it("are not those of another type, spelling, flag or transport", () => {
    const { records, resolver } = cluster();
    const name = "web.default.svc.cluster.local";
    const recursionNotDesired = question(name);
    recursionNotDesired.writeUInt16BE(0, 2);
    const withOptions = encode({
      type: "query",
      id: 7,
      flags: 0x100,
      questions: [{ name, type: "A" }],
      additionals: [
        {
          type: "OPT",
          name: ".",
          udpPayloadSize: 1232,
          extendedRcode: 0,
          ednsVersion: 0,
          flags: 0,
          flag_do: false,
          options: [],
        },
      ],
    });
    const different = [
      question(name),
      question(name, "AAAA"),
      question("WEB.default.svc.cluster.local"),
      recursionNotDesired,
      withOptions,
    ];
    for (const [index, message] of different.entries()) {
      ask(resolver, message);
      ask(resolver, message);
      const reply = ask(resolver, message);
      assert.equal(records.asked, 2 * (index + 1));
      // Behind the header the question comes back as it was.
      const { length } = question(name);
      assert.deepEqual(reply.subarray(12, length), message.subarray(12, length));
    }
    ask(resolver, question(name), "tcp");
    assert.equal(records.asked, 2 * different.length + 1);
  });

  it("addresses take turns in being the first, all of them", () => {
    const ips = ["10.244.0.1", "10.244.0.2", "10.244.0.3", "10.244.0.4", "10.244.0.5"];
    const { records, resolver } = cluster(...ips);
    const name = "many.default.svc.cluster.local";
    const replies = Array.from({ length: 12 }, () => addresses(ask(resolver, question(name))));
    assert.equal(records.asked, 2);
    for (const reply of replies) assert.deepEqual(reply.toSorted(byText), ips);
    const firsts = replies.map(([first = ""]) => first);
    assert.deepEqual(firsts.slice(0, 5).toSorted(byText), ips);
    assert.deepEqual(firsts.slice(5), firsts.slice(0, 7));
  });

  it("what is cut, and what is not of one length, is written anew each time", () => {
    const ips = Array.from({ length: 40 }, (_, index) => `10.244.0.${index}`);
    const { records, resolver } = cluster(...ips);
    const name = "many.default.svc.cluster.local";
    const seen = new Set<unknown>();
    for (let turn = 0; turn < 80; turn += 1) {
      const reply = ask(resolver, question(name));
      assert.ok(decode(reply).flag_tc);
      for (const address of addresses(reply)) seen.add(address);
    }
    assert.equal(seen.size, 40);
    assert.equal(records.asked, 80);
    const small = cluster("10.244.0.1", "10.244.0.2");
    for (let turn = 0; turn < 4; turn += 1) {
      ask(small.resolver, question(`_http._tcp.${name}`, "SRV"));
    }
    assert.equal(small.records.asked, 4);
  });

  it("are forgotten when names stand for something else", () => {
    const { records, resolver } = cluster("10.244.0.1");
    const message = question("many.default.svc.cluster.local");
    for (let turn = 0; turn < 3; turn += 1) {
      assert.deepEqual(addresses(ask(resolver, message)), ["10.244.0.1"]);
    }
    records.apply({
      full: false,
      services: [],
      slices: [slice("10.244.0.2")],
      removedServices: [],
      removedSlices: [],
      namespaces: undefined,
    });
    resolver.forget();
    assert.deepEqual(addresses(ask(resolver, message)), ["10.244.0.2"]);
  });

  it("what nobody knows yet is not remembered", () => {
    const records = new Counted({ domain: "cluster.local", serverIPs: [], ownNetworks: [] });
    const forwarder = { cached: () => undefined, forward: () => Promise.resolve(undefined) };
    const resolver = new Resolver({ records, forwarder });
    const message = question("web.default.svc.cluster.local");
    for (let turn = 0; turn < 3; turn += 1) {
      assert.equal(ask(resolver, message).readUInt16BE(2) & 0xf, 2);
    }
    assert.equal(records.asked, 3);
  });

  it("what is asked once is not kept", () => {
    const known = new KnownReplies();
    const message = question("a.x");
    known.set(message, message, undefined);
    assert.equal(known.get(message), undefined);
    known.set(message, message, undefined);
    assert.deepEqual(known.get(message), message);
  });

  it("stand beside others that are asked for as often, each under its own question", () => {
    const known = new KnownReplies();
    const at = (index: number): Buffer => question(`n${index}.x`);
    const keep = (index: number): void => {
      for (let turn = 0; turn < 2; turn += 1) known.set(at(index), at(index), undefined);
    };
    let kept = 0;
    for (let index = 0; index < 20_000; index += 1) keep(index);
    for (let index = 0; index < 20_000; index += 1) {
      const reply = known.get(at(index));
      if (reply === undefined) continue;
      kept += 1;
      assert.deepEqual(reply, at(index), String(index));
    }
    assert.ok(kept > 6000 && kept <= 8192, String(kept));
    known.clear();
    assert.equal(known.get(at(19_999)), undefined);
  });

  it("what is asked all the time stays", () => {
    const known = new KnownReplies();
    const often = question("often.x");
    for (let turn = 0; turn < 2; turn += 1) known.set(often, often, undefined);
    for (let index = 0; index < 50_000; index += 1) {
      const message = question(`n${index}.x`);
      for (let turn = 0; turn < 2; turn += 1) known.set(message, message, undefined);
      assert.ok(known.get(often) !== undefined, String(index));
    }
  });

  it("what is too long for its place is not kept", () => {
    const known = new KnownReplies();
    const message = question("a.x");
    for (let turn = 0; turn < 2; turn += 1) {
      known.set(message, Buffer.alloc(512 - message.length + 3), undefined);
    }
    assert.equal(known.get(message), undefined);
    for (let turn = 0; turn < 2; turn += 1) {
      known.set(message, Buffer.alloc(512 - message.length + 2), undefined);
    }
    assert.equal(known.get(message)?.length, 512 - message.length + 2);
    assert.equal(known.get(Buffer.alloc(600)), undefined);
  });

  it("one that waits to be sent is not written to", () => {
    const { resolver } = cluster();
    const message = question("web.default.svc.cluster.local", "A", 1);
    ask(resolver, message);
    ask(resolver, message);
    const waiting = resolver.answer(message, "udp", signal);
    assert.ok(Buffer.isBuffer(waiting));
    const before = Buffer.from(waiting);
    resolver.leaveReplies();
    for (let id = 2; id < 10; id += 1) {
      const reply = ask(resolver, question("web.default.svc.cluster.local", "A", id));
      assert.equal(reply.readUInt16BE(0), id);
    }
    assert.deepEqual(waiting, before);
  });
});
