import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { decode, encode } from "dns-packet";
import * as fc from "fast-check";

import { ClusterRecords } from "../../../src/dns/cluster-records.ts";
import { Resolver } from "../../../src/dns/resolver.ts";
import { parseDnsService, parseDnsSlice } from "../../../src/dns/parse.ts";
import { behindAlias, judgeReply, passOn, readReply } from "../../../src/dns/upstream-message.ts";
import { mixCase, outgoingQuestion } from "../../../src/dns/upstream-question.ts";
import { parseQuery, type Query } from "../../../src/dns/wire.ts";

const headerBytes = 12;
const { signal } = new AbortController();
const many = 10_000;
const crowd = "crowd.default.svc.cluster.local";

function address(index: number): string {
  return `10.${200 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`;
}

function resolver(): Resolver {
  const records = new ClusterRecords({
    domain: "cluster.local",
    serverIPs: ["10.96.0.10"],
    ownNetworks: [],
  });
  const metadata = { namespace: "default", name: "crowd" };
  const labels = { "kubernetes.io/service-name": "crowd" };
  // As the controller cuts them: 100 endpoints a slice.
  const slices = Array.from({ length: many / 100 }, (_, slice) =>
    parseDnsSlice({
      metadata: { namespace: "default", name: `crowd-${slice}`, labels },
      addressType: "IPv4",
      ports: [{ name: "http", port: 80, protocol: "TCP" }],
      endpoints: Array.from({ length: 100 }, (_each, index) => ({
        addresses: [address(100 * slice + index)],
      })),
    }),
  );
  records.apply({
    full: true,
    services: [parseDnsService({ metadata, spec: { clusterIP: "None" } })],
    slices,
    removedServices: [],
    removedSlices: [],
    namespaces: ["default"],
  });
  return new Resolver({
    records,
    forwarder: { cached: () => undefined, forward: () => Promise.resolve(undefined) },
  });
}

function asking(name: string, type: "A" | "SRV" = "A", payloadBytes?: number): Buffer {
  const opt = {
    type: "OPT" as const,
    name: ".",
    udpPayloadSize: payloadBytes ?? 0,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options: [],
  };
  return encode({
    type: "query",
    id: 77,
    flags: 0x100,
    questions: [{ name, type }],
    additionals: payloadBytes === undefined ? [] : [opt],
  });
}

function answerOf(message: Buffer, transport: "udp" | "tcp", of = shared): Buffer {
  const answer = of.answer(message, transport, signal);
  assert.ok(Buffer.isBuffer(answer), "answered at once");
  return Buffer.from(answer);
}

const shared = resolver();

function query(name: string): Query {
  const parsed = parseQuery(asking(name));
  assert.ok(parsed.kind === "query");
  return parsed.query;
}

/** A reply of an upstream to `name`: answers in raw bytes behind the question. */
function upstream(name: string, answers: readonly Buffer[]): Buffer {
  const head = Buffer.from(asking(name));
  head.writeUInt16BE(0x8180, 2);
  head.writeUInt16BE(answers.length, 6);
  return Buffer.concat([head, ...answers]);
}

/** Labels of so many bytes together, without an end. */
function longLabels(bytes: number): readonly number[] {
  const labels: number[] = [];
  for (let left = bytes; left > 0;) {
    const length = Math.min(63, left - 1);
    labels.push(length, ...Array.from({ length }, () => 0x61));
    left -= length + 1;
  }
  return labels;
}

/** A record with this owner, in raw bytes. */
function record(owner: readonly number[], type: number, data: readonly number[]): Buffer {
  return Buffer.from([...owner, 0, type, 0, 1, 0, 0, 0, 60, 0, data.length, ...data]);
}

describe("ten thousand addresses of one name", () => {
  for (const payloadBytes of [undefined, 1232, 4096]) {
    it(`by UDP are cut and say so (EDNS ${String(payloadBytes)})`, () => {
      const reply = answerOf(asking(crowd, "A", payloadBytes), "udp");
      const most = payloadBytes === undefined ? 512 : 1232;
      assert.ok(reply.length <= most && reply.length > most - 40, String(reply.length));
      assert.ok(decode(reply).flag_tc);
    });
  }

  it("by TCP are as many as there is room for, without an error, others each time", () => {
    const seen = new Set<string>();
    for (let turn = 0; turn < 3; turn += 1) {
      const reply = answerOf(asking(crowd), "tcp");
      assert.ok(reply.length <= 65_535 && reply.length > 65_000, String(reply.length));
      const {
        answers = [],
        flag_tc: cut,
        rcode,
      } = decode(reply) as ReturnType<typeof decode> & {
        rcode: string;
      };
      assert.equal(cut, false);
      assert.equal(rcode, "NOERROR");
      assert.ok(answers.length > 4000);
      for (const answer of answers) if (answer.type === "A") seen.add(answer.data);
    }
    assert.ok(seen.size > 4000);
  });

  it("SRV of them too, each with a target in full", () => {
    const reply = decode(answerOf(asking(`_http._tcp.${crowd}`, "SRV"), "tcp"));
    assert.equal(reply.flag_tc, false);
    assert.ok((reply.answers ?? []).length > 500);
    assert.ok((reply.answers ?? []).every(({ type }) => type === "SRV"));
  });

  it("a thousand fit, and all of them come", () => {
    const label = address(1).replaceAll(".", "-");
    const one = decode(answerOf(asking(`${label}.${crowd}`), "tcp"));
    assert.equal(one.answers?.length, 1);
  });
});

describe("questions that are none", () => {
  const good = asking(`WeB.${crowd}`, "A", 1232);

  it("cut at every byte are refused or dropped, never answered", () => {
    for (let length = 0; length < good.length; length += 1) {
      const parsed = parseQuery(Buffer.from(good.subarray(0, length)));
      assert.equal(parsed.kind, length < headerBytes ? "dropped" : "refused", String(length));
      if (parsed.kind === "refused") assert.equal(parsed.reply.readUInt16BE(2) & 0xf, 1);
    }
  });

  const header = asking("x").subarray(0, headerBytes);
  const tail = [0, 1, 0, 1];
  const label = (length: number): number[] => [length, ...Array.from({ length }, () => 0x61)];
  const table: readonly (readonly [string, readonly number[], "query" | "refused"])[] = [
    ["a pointer to itself", [0xc0, 12, ...tail], "refused"],
    ["two pointers at each other", [0xc0, 14, 0xc0, 12, ...tail], "refused"],
    ["a pointer forward", [0xc0, 40, ...tail, 1, 0x61, 0], "refused"],
    ["a pointer into the header", [0xc0, 0, ...tail], "refused"],
    ["a pointer behind a label", [1, 0x61, 0xc0, 12, ...tail], "refused"],
    ["a label of 63", [...label(63), 0, ...tail], "query"],
    ["a label of 64", [64, ...label(63), 0x61, 0, ...tail], "refused"],
    ["a label of 191", [0xbf, ...label(190), 0, ...tail], "refused"],
    [
      "a name of 255",
      [...label(63), ...label(63), ...label(63), ...label(61), 0, ...tail],
      "query",
    ],
    [
      "a name of 256",
      [...label(63), ...label(63), ...label(63), ...label(62), 0, ...tail],
      "refused",
    ],
    ["127 labels", [...Array.from({ length: 127 }, () => label(1)).flat(), 0, ...tail], "query"],
    ["128 labels", [...Array.from({ length: 128 }, () => label(1)).flat(), 0, ...tail], "refused"],
    ["no end", label(63), "refused"],
    ["the root", [0, ...tail], "query"],
    ["bytes behind it", [0, ...tail, 1, 2, 3], "query"],
  ];
  for (const [what, bytes, expected] of table) {
    it(`${what}: ${expected}`, () => {
      const message = Buffer.concat([header, Buffer.from(bytes)]);
      assert.equal(parseQuery(message).kind, expected);
      const answer = shared.answer(message, "udp", signal);
      if (Buffer.isBuffer(answer)) assert.ok(answer.readUInt16BE(2) & 0x8000);
    });
  }

  it("of 64 KiB cost no more than their length", () => {
    const long = Buffer.concat([header, Buffer.alloc(65_000, 1)]);
    assert.equal(parseQuery(long).kind, "refused");
    const records = Buffer.from(long);
    records.writeUInt16BE(0xffff, 10);
    assert.equal(parseQuery(records).kind, "refused");
  });

  it("any bytes behind a good header lead to a reply or to nothing", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(255), (bytes, flag) => {
        const message = Buffer.concat([header, Buffer.from(bytes)]);
        message.writeUInt8(flag, 2);
        const answer = shared.answer(message, "udp", signal);
        if (!Buffer.isBuffer(answer)) return;
        assert.equal(answer.readUInt16BE(0), message.readUInt16BE(0));
        assert.ok(answer.length <= 1232);
        decode(answer);
      }),
      { numRuns: 2000, plugins: [fc.interruptAfterTimeLimit(2000)] },
    );
  });
});

describe("0x20", () => {
  it("the asker's spelling comes back, in the question and in the answers", () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { minLength: crowd.length }), (upper) => {
        const name = crowd.replaceAll(/./g, (letter, index: number) =>
          upper[index] === true ? letter.toUpperCase() : letter,
        );
        const { questions = [], answers = [] } = decode(answerOf(asking(name), "udp"));
        assert.equal(questions[0]?.name, name);
        assert.ok(answers.length > 20 && answers.every((answer) => answer.name === name));
      }),
      { numRuns: 50 },
    );
  });

  it("our own spelling is another one each time, and only letters change", () => {
    let turn = 0;
    const random = (): number => (turn = (turn + 0.618_034) % 1);
    const { question } = query("a-1_b.EXAMPLE.test");
    const spelled = new Set<string>();
    for (let count = 0; count < 50; count += 1) {
      const mixed = mixCase(question, random);
      assert.equal(
        mixed.toString("latin1").toLowerCase(),
        question.toString("latin1").toLowerCase(),
      );
      assert.deepEqual(mixed.subarray(-4), question.subarray(-4));
      spelled.add(mixed.toString("latin1"));
    }
    assert.ok(spelled.size > 40, String(spelled.size));
  });

  it("type and class are never taken for letters", () => {
    const question = Buffer.from([1, 0x61, 0, 0x41, 0x41, 0x61, 0x61]);
    assert.deepEqual([...mixCase(question, () => 0).subarray(3)], [0x41, 0x41, 0x61, 0x61]);
    const mixed = { edns: true, mixedCase: true };
    const out = outgoingQuestion({ question, passedFlags: 0, edns: undefined }, mixed, () => 0);
    assert.deepEqual([...out.question], [1, 0x61, 0, 0x41, 0x41, 0x61, 0x61]);
  });
});

describe("replies of an upstream that means harm", () => {
  const asked = query("name.test");
  const passing = { ageSeconds: 0, maxTTL: 30, limit: 512 };
  const owner = [0xc0, 12];
  const addressOf = [192, 0, 2, 1];

  it("cut at every byte are malformed, and none is passed on", () => {
    const whole = upstream("name.test", [
      record(owner, 5, [4, 0x68, 0x6f, 0x73, 0x74, 0xc0, 17]),
      record([0xc0, 39], 1, addressOf),
    ]);
    assert.notEqual(readReply(whole, asked.question, 30), undefined);
    for (let length = headerBytes; length < whole.length; length += 1) {
      const message = Buffer.from(whole.subarray(0, length));
      const verdict = judgeReply(message, { id: 77, question: asked.question });
      if (length < headerBytes + asked.question.length) assert.equal(verdict, "stray");
      else assert.equal(readReply(message, asked.question, 30), undefined, String(length));
      behindAlias(message, passing);
    }
  });

  const loops: readonly (readonly [string, readonly Buffer[]])[] = [
    ["an owner that points at itself", [record([0xc0, 27], 1, addressOf)]],
    ["an owner that points forward", [record([0xc0, 60], 1, addressOf)]],
    ["an alias whose target points at itself", [record(owner, 5, [0xc0, 39])]],
    ["an alias to itself", [record(owner, 5, [0xc0, 12])]],
    [
      "two aliases in a circle",
      [record(owner, 5, [1, 0x62, 0]), record([1, 0x62, 0], 5, [0xc0, 12])],
    ],
    ["a label of 63 bytes that is not there", [record([63, 1, 0], 1, addressOf)]],
    ["a record of a gigantic length", [Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 255, 255])]],
    ["an OPT record among the answers", [record([0], 41, []), record(owner, 1, addressOf)]],
  ];
  for (const [what, answers] of loops) {
    it(`${what}: no endless work, and no address for an ExternalName`, () => {
      const message = upstream("name.test", answers);
      const reply = readReply(message, asked.question, 30);
      if (reply === undefined) return;
      assert.ok(passOn(reply, asked, passing).length <= 512);
      const { answers: believed = [] } = behindAlias(message, passing) ?? {};
      assert.deepEqual(
        believed.filter(({ type }) => type === "A"),
        [],
      );
    });
  }

  const wrong: readonly (readonly [string, Buffer])[] = [
    ["an address of three bytes", record(owner, 1, [192, 0, 2])],
    ["an IPv6 address of four", record(owner, 28, addressOf)],
    ["an alias and something behind it", record(owner, 5, [0xc0, 12, 0])],
    ["an alias that ends in the middle", record(owner, 5, [5, 0x61])],
    ["an MX record without a name", record(owner, 15, [0, 10])],
    [
      "an SRV record whose target points forward",
      record(owner, 33, [0, 0, 0, 1, 0, 80, 0xc0, 200]),
    ],
    ["an SOA record that is too short", record(owner, 6, [0xc0, 12, 0xc0, 12, 0, 0, 0, 1])],
    ["a name of 257 bytes, made of two", record([...longLabels(196), 0xc0, 27], 1, addressOf)],
  ];
  for (const [what, one] of wrong) {
    it(`${what} is malformed`, () => {
      // Behind a name of 60 bytes, for those that need a long one to point at.
      const long = record([...longLabels(60), 0], 16, [1, 0x61]);
      assert.equal(readReply(upstream("name.test", [long, one]), asked.question, 30), undefined);
    });
  }

  it("a long chain of pointers is malformed, a short one is not", () => {
    const chain = (length: number): Buffer => {
      const records = [record(owner, 1, addressOf)];
      for (let at = 27; records.length < length; at += 16) {
        records.push(record([0xc0 | (at >> 8), at & 255], 1, addressOf));
      }
      return upstream("name.test", records);
    };
    assert.equal(readReply(chain(20), asked.question, 30)?.places.length, 20);
    assert.equal(readReply(chain(50), asked.question, 30), undefined);
  });

  it("with records that nobody asked for behind their OPT record lose these", () => {
    const opt = record([0], 41, []);
    const message = upstream("name.test", [record(owner, 1, addressOf), opt, record([0], 250, [])]);
    message.writeUInt16BE(1, 6);
    message.writeUInt16BE(2, 10);
    const reply = readReply(message, asked.question, 30);
    assert.ok(reply !== undefined);
    const passed = decode(passOn(reply, asked, passing));
    assert.deepEqual([passed.answers?.length, passed.additionals?.length], [1, 0]);
  });

  it("with a negative TTL live for no time, and with the largest half a minute", () => {
    for (const [bytes, expected] of [
      [[0x80, 0, 0, 0], 0],
      [[0x7f, 255, 255, 255], 30],
    ] as const) {
      const one = record(owner, 1, addressOf);
      one.set(bytes, 6);
      assert.equal(readReply(upstream("name.test", [one]), asked.question, 30)?.ttl, expected);
    }
  });

  it("any bytes at all are survived", () => {
    const whole = upstream("name.test", [record(owner, 1, addressOf), record(owner, 1, addressOf)]);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 12 }),
        fc.nat(whole.length),
        (changes, length) => {
          const message = Buffer.from(whole);
          for (const [at, byte] of changes) message[at] = byte;
          const part = message.subarray(0, Math.max(length, headerBytes));
          if (judgeReply(part, { id: 77, question: asked.question }) !== "reply") return;
          const reply = readReply(part, asked.question, 30);
          if (reply === undefined) return;
          const passed = passOn(reply, asked, passing);
          assert.ok(passed.length <= 512);
          assert.equal(passed.readUInt16BE(0), asked.id);
          behindAlias(part, passing);
        },
      ),
      { numRuns: 4000, plugins: [fc.interruptAfterTimeLimit(2000)] },
    );
  });
});
