import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { decode, encode } from "dns-packet";
import * as fc from "fast-check";

import type { DnsRecord } from "../../../src/dns/types.ts";
import { encodeReply, parseQuery, type Query } from "../../../src/dns/wire.ts";

function asked(name: string): Query {
  const parsed = parseQuery(encode({ type: "query", id: 7, questions: [{ name, type: "A" }] }));
  assert.ok(parsed.kind === "query");
  return parsed.query;
}

/** Few labels, so that names end alike. */
const names = fc
  .array(fc.constantFrom("a", "b", "svc", "cluster", "local"), { minLength: 1, maxLength: 5 })
  .map((labels) => labels.join("."));

function address(name: string): DnsRecord {
  return { name, type: "A", ttl: 5, data: "10.0.0.1" };
}

function soa(serial: number): DnsRecord {
  const data = { mname: "n", rname: "r", serial, refresh: 1, retry: 1, expire: 1, minimum: 1 };
  return { name: "local", type: "SOA", ttl: 5, data };
}

describe("names in a message", () => {
  it("come out as they went in, whatever ends like what", () => {
    fc.assert(
      fc.property(names, fc.array(names, { maxLength: 12 }), (question, owners) => {
        const answers = owners.map(address);
        const reply = encodeReply(asked(question), { rcode: 0, answers }, 4096);
        assert.deepEqual(
          decode(reply).answers?.map((answer) => answer.name),
          owners,
        );
      }),
    );
  });

  it("are written once", () => {
    const lengthOf = (...owners: string[]): number =>
      encodeReply(asked("b.local"), { rcode: 0, answers: owners.map(address) }, 4096).length;
    const none = lengthOf();
    const tail = 14;
    assert.equal(lengthOf("b.local") - none, 2 + tail, "the question's own");
    assert.equal(lengthOf("local") - none, 2 + tail, "one above it");
    assert.equal(lengthOf("aa.b.local") - none, 5 + tail, "one below it");
    // No border between labels: nothing to point at but `local`.
    assert.equal(lengthOf("bb.local") - none, 5 + tail);
    assert.equal(lengthOf("x.y", "x.y") - none, 5 + tail + 2 + tail, "another record's");
    assert.equal(lengthOf("x.y", "y") - none, 5 + tail + 2 + tail);
  });

  it("a message of the greatest length ends at a record", () => {
    const answers = Array.from({ length: 5000 }, (_, index) => address(`n${index}.example`));
    const reply = encodeReply(asked("a"), { rcode: 0, answers }, 65_535);
    const decoded = decode(reply);
    assert.ok(!decoded.flag_tc && reply.length <= 65_535 && reply.length > 65_000);
    assert.equal(decoded.answers?.at(-1)?.name, `n${(decoded.answers?.length ?? 0) - 1}.example`);
  });

  it("a zone's next SOA is not the last one's", () => {
    for (const serial of [1, 2, 2, 3]) {
      const reply = encodeReply(asked("a"), { rcode: 3, authorities: [soa(serial)] }, 512);
      const [authority] = decode(reply).authorities ?? [];
      assert.ok(authority?.type === "SOA");
      assert.equal(authority.data.serial, serial);
    }
  });
});
