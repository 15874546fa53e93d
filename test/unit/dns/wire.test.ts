import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { decode, encode, type Question } from "dns-packet";
import * as fc from "fast-check";

import type { DnsRecord } from "../../../src/dns/types.ts";
import { behindAlias, passOn, readReply } from "../../../src/dns/upstream-message.ts";
import { encodeReply, parseQuery, type Query, rcodes, udpLimit } from "../../../src/dns/wire.ts";

const name = "WeB.default.svc.cluster.local";

interface Asked {
  readonly question?: Partial<Question>;
  readonly flags?: number;
  readonly payloadBytes?: number;
}

function asking({ question = {}, flags = 0x0100, payloadBytes }: Asked = {}): Buffer {
  return encode({
    type: "query",
    id: 4711,
    flags,
    questions: [{ name, type: "A", ...question }],
    additionals:
      payloadBytes === undefined
        ? []
        : [
            {
              type: "OPT",
              name: ".",
              udpPayloadSize: payloadBytes,
              extendedRcode: 0,
              ednsVersion: 0,
              flags: 0x8000,
              flag_do: true,
              options: [],
            },
          ],
  });
}

function query(asked: Asked = {}): Query {
  const parsed = parseQuery(asking(asked));
  assert.ok(parsed.kind === "query", parsed.kind);
  return parsed.query;
}

function addresses(count: number, owner = "web.default.svc.cluster.local"): DnsRecord[] {
  return Array.from({ length: count }, (_, index) => ({
    name: owner,
    type: "A" as const,
    ttl: 5,
    data: `10.244.${index >> 8}.${index & 255}`,
  }));
}

/** The refusal of a message with one byte or word changed. */
function refusal(change: (message: Buffer) => Buffer | void): number | "query" | "dropped" {
  const message = asking({ payloadBytes: 1232 });
  const parsed = parseQuery(change(message) ?? message);
  if (parsed.kind !== "refused") return parsed.kind;
  const low = parsed.reply.readUInt16BE(2) & 0xf;
  const extended = parsed.reply.length > 12 ? (decode(parsed.reply).additionals ?? []) : [];
  const [opt] = extended;
  return opt?.type === "OPT" ? (opt.extendedRcode << 4) | low : low;
}

describe("reading questions", () => {
  it("keeps the asker's spelling and looks up in lower case", () => {
    const { name: lower, question, type, edns, id } = query({ payloadBytes: 4096 });
    assert.equal(lower, name.toLowerCase());
    assert.equal(type, "A");
    assert.equal(id, 4711);
    assert.deepEqual(edns, { payloadBytes: 4096, dnssecOK: true, version: 0 });
    assert.ok(question.includes(Buffer.from("WeB")));
  });

  it("a dot inside a label is no border between labels", () => {
    const message = asking({ question: { name: "ab.cd" } });
    // 2 a b 2 c d 0 becomes 5 a b . c d 0
    message.set([5, 0x61, 0x62, 0x2e, 0x63, 0x64, 0], 12);
    const parsed = parseQuery(message);
    assert.ok(parsed.kind === "query");
    assert.notEqual(parsed.query.name, "ab.cd");
  });

  const table: readonly (readonly [string, (message: Buffer) => Buffer | void, unknown])[] = [
    ["a good question", () => undefined, "query"],
    ["eleven bytes", (message) => message.subarray(0, 11), "dropped"],
    ["a reply", (message) => void message.writeUInt16BE(0x8100, 2), "dropped"],
    ["opcode STATUS", (message) => void message.writeUInt16BE(0x1000, 2), rcodes.notImp],
    ["TC set", (message) => void message.writeUInt16BE(0x0200, 2), rcodes.formErr],
    ["no question", (message) => void message.writeUInt16BE(0, 4), rcodes.formErr],
    ["two questions", (message) => void message.writeUInt16BE(2, 4), rcodes.formErr],
    ["an answer in the question", (message) => void message.writeUInt16BE(1, 6), rcodes.formErr],
    [
      "many additional records",
      (message) => void message.writeUInt16BE(60_000, 10),
      rcodes.formErr,
    ],
    ["cut in the name", (message) => message.subarray(0, 20), rcodes.formErr],
    ["cut behind the name", (message) => message.subarray(0, 44), rcodes.formErr],
    ["cut in the OPT record", (message) => message.subarray(0, -3), rcodes.formErr],
    [
      "a name that points at itself",
      (message) => void message.writeUInt16BE(0xc00c, 12),
      rcodes.formErr,
    ],
    ["a label of a reserved kind", (message) => void message.writeUInt8(0x80, 12), rcodes.formErr],
    ["class CHAOS", (message) => void message.writeUInt16BE(3, 45), rcodes.refused],
    ["AXFR", (message) => void message.writeUInt16BE(252, 43), rcodes.refused],
    [
      "IXFR, with the SOA that it has",
      (message) => {
        message.writeUInt16BE(251, 43);
        message.writeUInt16BE(1, 8);
      },
      rcodes.refused,
    ],
    ["type OPT", (message) => void message.writeUInt16BE(41, 43), rcodes.formErr],
    ["EDNS version 1", (message) => void message.writeUInt8(1, 53), rcodes.badVers],
    ["a name of 300 bytes", () => longName(300), rcodes.formErr],
    ["a name of 255 bytes", () => longName(255), "query"],
  ];
  for (const [what, change, expected] of table) {
    it(`${what}: ${String(expected)}`, () => assert.equal(refusal(change), expected));
  }

  it("never throws, whatever the bytes", () => {
    const good = asking({ payloadBytes: 1232 });
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 600 }),
          fc.tuple(fc.nat(good.length - 1), fc.uint8Array({ maxLength: 20 })).map(([at, bytes]) => {
            const copy = Buffer.from(good);
            copy.set(bytes.subarray(0, good.length - at), at);
            return copy;
          }),
        ),
        (bytes) => {
          const parsed = parseQuery(Buffer.from(bytes));
          if (parsed.kind === "query") encodeReply(parsed.query, { rcode: 0 }, 512);
        },
      ),
      { numRuns: 3000, plugins: [fc.interruptAfterTimeLimit(2000)] },
    );
  });
});

function longName(bytes: number): Buffer {
  const labels: number[] = [];
  for (let left = bytes - 1; left > 0;) {
    const length = Math.min(63, left - 1);
    labels.push(length, ...Array.from({ length }, () => 0x61));
    left -= length + 1;
  }
  const header = asking().subarray(0, 12);
  return Buffer.concat([header, Buffer.from([...labels, 0, 0, 1, 0, 1])]);
}

describe("writing replies", () => {
  it("is what another library reads", () => {
    const soa: DnsRecord = {
      name: "cluster.local",
      type: "SOA",
      ttl: 5,
      data: {
        mname: "ns.dns.cluster.local",
        rname: "hostmaster.cluster.local",
        serial: 1,
        refresh: 2,
        retry: 3,
        expire: 4,
        minimum: 5,
      },
    };
    const target = "a.web.default.svc.cluster.local";
    const reply = decode(
      encodeReply(
        query({ payloadBytes: 1232 }),
        {
          rcode: rcodes.noError,
          authoritative: true,
          answers: [
            ...addresses(2),
            {
              name: target,
              type: "SRV",
              ttl: 5,
              data: { priority: 0, weight: 1, port: 2, target },
            },
            { name: "x.example", type: "TXT", ttl: 5, data: "1.1.0" },
          ],
          authorities: [soa],
          additionals: addresses(1, target),
        },
        1232,
      ),
    );
    assert.equal(reply.id, 4711);
    assert.ok(reply.flag_aa && reply.flag_ra && reply.flag_rd && !reply.flag_tc);
    assert.deepEqual(
      reply.questions?.map((question) => question.name),
      [name],
    );
    assert.deepEqual(
      reply.answers?.map((answer) => answer.name),
      // The first two point at the question, and so come back as it was spelled.
      [name, name, `a.${name}`, "x.example"],
    );
    assert.equal(reply.authorities?.[0]?.name, "cluster.local");
    assert.deepEqual(
      reply.additionals?.map(({ type }) => type),
      ["A", "OPT"],
    );
  });

  it("keeps to 512 bytes without EDNS, and says that it was cut", () => {
    const asked = query();
    const reply = encodeReply(asked, { rcode: 0, answers: addresses(100) }, udpLimit(asked));
    assert.ok(reply.length <= 512 && reply.length > 490, String(reply.length));
    const decoded = decode(reply);
    assert.ok(decoded.flag_tc);
    assert.equal(decoded.answers?.length, 29);
  });

  it("keeps to what the asker can take, and to 1232 bytes", () => {
    for (const [asked, most] of [
      [100, 512],
      [800, 800],
      [65_535, 1232],
    ] as const) {
      const one = query({ payloadBytes: asked });
      const reply = encodeReply(one, { rcode: 0, answers: addresses(200) }, udpLimit(one));
      assert.ok(reply.length <= most && reply.length > most - 20, `${asked}: ${reply.length}`);
      assert.ok(decode(reply).additionals?.some(({ type }) => type === "OPT"));
    }
  });

  it("leaves additional records out without calling that cut", () => {
    const asked = query();
    const reply = decode(
      encodeReply(
        asked,
        { rcode: 0, answers: addresses(1), additionals: addresses(90, "b.c") },
        512,
      ),
    );
    assert.equal(reply.flag_tc, false);
    assert.equal(reply.answers?.length, 1);
  });
});

describe("replies from upstream", () => {
  const soaData = {
    mname: "a",
    rname: "b",
    serial: 1,
    refresh: 1,
    retry: 1,
    expire: 1,
    minimum: 7,
  };
  const message = encode({
    type: "response",
    id: 1,
    flags: 0x180,
    questions: [{ name: name.toLowerCase(), type: "A" }],
    answers: Array.from({ length: 60 }, (_, index) => ({
      name: name.toLowerCase(),
      type: "A" as const,
      ttl: index === 3 ? 12 : 300,
      data: `192.0.2.${index}`,
    })),
  });

  it("live as long as their shortest record, and half a minute at most", () => {
    const { question } = query();
    assert.equal(readReply(message, question, 30)?.ttl, 12);
    assert.equal(readReply(message, question, 10)?.ttl, 10);
  });

  it("of names that are not there live as long as the zone says", () => {
    const { question } = query();
    const gone = (ttl: number) =>
      encode({
        type: "response",
        flags: 0x183,
        questions: [{ name, type: "A" }],
        authorities: [{ name: "example", type: "SOA", ttl, data: soaData }],
      });
    assert.equal(readReply(gone(20), question, 30)?.ttl, 7);
    assert.equal(readReply(gone(3), question, 30)?.ttl, 3);
    const silent = encode({ type: "response", flags: 0x183, questions: [{ name, type: "A" }] });
    assert.equal(readReply(silent, question, 30)?.ttl, 0);
  });

  it("come under the asker's id and spelling, older, and cut at a record", () => {
    const asked = query();
    const reply = readReply(message, asked.question, 30);
    assert.ok(reply !== undefined);
    const passing = { ageSeconds: 4, maxTTL: 30, limit: 512 };
    const passed = passOn(reply, asked, passing);
    assert.ok(passed.length <= 512);
    const decoded = decode(passed);
    assert.equal(decoded.id, 4711);
    assert.equal(decoded.questions?.[0]?.name, name);
    assert.ok(decoded.flag_tc);
    const ttls = decoded.answers?.map((answer) => ("ttl" in answer ? answer.ttl : 0)) ?? [];
    assert.deepEqual(ttls.slice(0, 5), [26, 26, 26, 8, 26]);
    assert.equal(decode(passOn(reply, asked, { ...passing, limit: 65_535 })).answers?.length, 60);
  });

  it("never throw, whatever the bytes", () => {
    const asked = query();
    fc.assert(
      fc.property(fc.nat(message.length - 1), fc.uint8Array({ maxLength: 12 }), (at, bytes) => {
        const copy = Buffer.from(message);
        copy.set(bytes.subarray(0, copy.length - at), at);
        const reply = readReply(copy, asked.question, 30);
        if (reply !== undefined) {
          const passed = passOn(reply, asked, { ageSeconds: 1, maxTTL: 30, limit: 512 });
          assert.ok(passed.length <= 512);
        }
        behindAlias(copy, { maxTTL: 30, ageSeconds: 0 });
      }),
      { numRuns: 2000, plugins: [fc.interruptAfterTimeLimit(2000)] },
    );
  });

  it("of thousands of records that point at one another cost no time", () => {
    const records = Buffer.alloc(4000 * 12);
    for (let at = 0; at < records.length; at += 12) records.writeUInt16BE(0xc00c, at);
    const bomb = Buffer.concat([message.subarray(0, 12 + query().question.length), records]);
    bomb.writeUInt16BE(4000, 6);
    assert.equal(readReply(bomb, query().question, 30)?.places.length, 4000);
    assert.equal(behindAlias(bomb, { maxTTL: 30, ageSeconds: 0 }), undefined);
  });
});
