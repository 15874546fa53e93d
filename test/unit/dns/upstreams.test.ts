import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { encode } from "dns-packet";

import type { UpstreamServer } from "../../../src/dns/exchange.ts";
import { type AskingOptions, Upstreams } from "../../../src/dns/upstreams.ts";
import { readReply, type UpstreamReply } from "../../../src/dns/upstream-message.ts";
import { parseQuery, type Query } from "../../../src/dns/wire.ts";
import { systemClock } from "../../../src/lib/clock.ts";

type Behaviour = "answers" | "refuses" | "fails" | "silent";

const asking: AskingOptions = {
  tryMs: 5,
  totalMs: 10_000,
  attempts: 2,
  rotate: false,
  tcpOnly: false,
};
const { signal } = new AbortController();
const message = encode({ type: "query", id: 1, questions: [{ name: "name.test", type: "A" }] });

function query(): Query {
  const parsed = parseQuery(message);
  assert.ok(parsed.kind === "query");
  return parsed.query;
}

function reply(rcode: number): UpstreamReply {
  const bytes = Buffer.from(message);
  bytes.writeUInt16BE(0x8180 | rcode, 2);
  const read = readReply(bytes, query().question, 30);
  assert.ok(read !== undefined);
  return read;
}

function until(limit: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    limit.addEventListener("abort", () => reject(limit.reason as Error), { once: true });
  });
}

/** Asks servers that behave so, in this order; those of `down` are known to be down. */
async function ask(
  behaviours: readonly Behaviour[],
  { down = [], ...more }: Partial<AskingOptions> & { readonly down?: readonly number[] } = {},
): Promise<{ asked: string; rcode: number | undefined; suspected: string }> {
  const asked: number[] = [];
  const suspected: number[] = [];
  const upstreams = new Upstreams({
    ask: async ({ port }, _query, limit) => {
      asked.push(port);
      const behaviour = behaviours[port];
      if (behaviour === "answers") return reply(0);
      if (behaviour === "refuses") return reply(2);
      if (behaviour === "fails") throw new Error("connect ECONNREFUSED");
      return until(limit);
    },
    health: {
      isDown: ({ port }) => down.includes(port),
      answered: () => undefined,
      suspect: ({ port }) => void suspected.push(port),
    },
    clock: systemClock,
  });
  const servers = behaviours.map((_, port): UpstreamServer => ({ address: "192.0.2.1", port }));
  const found = await upstreams.ask(servers, query(), { ...asking, ...more }, signal);
  return { asked: asked.join(" "), rcode: found?.rcode, suspected: suspected.join(" ") };
}

describe("which server is asked", () => {
  const table: readonly (readonly [
    string,
    Parameters<typeof ask>,
    { readonly asked: string; readonly rcode?: number; readonly suspected?: string },
  ])[] = [
    ["the first, when it answers", [["answers", "answers"]], { asked: "0", rcode: 0 }],
    ["the next after a refusal", [["refuses", "answers"]], { asked: "0 1", rcode: 0 }],
    [
      "the first refusal counts when all refuse",
      [["refuses", "refuses"]],
      { asked: "0 1", rcode: 2 },
    ],
    ["the next after a failure", [["fails", "answers"]], { asked: "0 1", rcode: 0 }],
    ["one that cannot be asked is not asked twice", [["fails"]], { asked: "0" }],
    [
      "the next after silence, which is suspicious",
      [["silent", "answers"]],
      { asked: "0 1", rcode: 0, suspected: "0" },
    ],
    [
      "a silent one again when nobody answered",
      [["silent", "fails"]],
      { asked: "0 1 0", suspected: "0 0" },
    ],
    [
      "as often as the host says",
      [["silent"], { attempts: 3 }],
      { asked: "0 0 0", suspected: "0 0 0" },
    ],
    [
      "nobody again after a refusal",
      [["silent", "refuses"]],
      { asked: "0 1", rcode: 2, suspected: "0" },
    ],
    [
      "those that are down last, together",
      [["answers", "fails", "answers"], { down: [0, 2] }],
      { asked: "1 0 2", rcode: 0 },
    ],
    [
      "one that is down only when the others fail",
      [["answers", "answers"], { down: [0] }],
      { asked: "1", rcode: 0 },
    ],
    [
      "of those that are down the first that answers, without waiting for the others",
      [["silent", "answers"], { down: [0, 1], tryMs: 60_000 }],
      { asked: "0 1", rcode: 0 },
    ],
    [
      "at most four of those that are down",
      [["answers", "answers", "answers", "answers", "answers"], { down: [0, 1, 2, 3, 4] }],
      { asked: "0 1 2 3", rcode: 0 },
    ],
    ["nobody when there is none", [[]], { asked: "" }],
    ["nobody when there is no time", [["answers"], { totalMs: 0 }], { asked: "" }],
  ];
  for (const [what, args, expected] of table) {
    it(what, async () => {
      const { asked, rcode, suspected } = await ask(...args);
      assert.deepEqual(
        { asked, rcode, suspected },
        { rcode: undefined, suspected: "", ...expected },
      );
    });
  }

  it("another one first each time, when the host wants that", async () => {
    const asked: number[] = [];
    const upstreams = new Upstreams({
      ask: ({ port }) => {
        asked.push(port);
        return Promise.resolve(reply(0));
      },
      health: { isDown: () => false, answered: () => undefined, suspect: () => undefined },
      clock: systemClock,
    });
    const servers = [0, 1, 2].map((port): UpstreamServer => ({ address: "192.0.2.1", port }));
    for (let turn = 0; turn < 6; turn += 1) {
      await upstreams.ask(servers, query(), { ...asking, rotate: true }, signal);
    }
    assert.deepEqual(asked, [1, 2, 0, 1, 2, 0]);
  });
});
