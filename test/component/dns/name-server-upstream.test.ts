import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { type Answer, decode, encode, TRUNCATED_RESPONSE } from "dns-packet";

import { askTCP, askUDP } from "../../../src/dns/exchange.ts";
import { LoopCheck } from "../../../src/dns/loop-check.ts";
import { readReply } from "../../../src/dns/upstream-message.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { type Logger, silentLogger } from "../../../src/lib/log.ts";
import { FakeNameServer } from "../../fakes/name-server.ts";
import { RawNameServer } from "../../fakes/raw-name-server.ts";
import { a, at, data, hasty, loopback, names, nextRandom, Running } from "./running.ts";

const headerBytes = 12;
const response = 0x8180;

/** The message as a reply without records, with this rcode. */
function refusal(message: Buffer, rcode: number): Buffer {
  const reply = Buffer.from(message.subarray(0, questionEnd(message)));
  reply.writeUInt16BE(response | rcode, 2);
  reply.writeUInt16BE(0, 10);
  return reply;
}

function questionEnd(message: Buffer): number {
  let at = headerBytes;
  while ((message[at] ?? 0) !== 0) at += (message[at] ?? 0) + 1;
  return at + 5;
}

/** A reply with one address, the question byte for byte as it came. */
function answered(message: Buffer, address = "192.0.2.1"): Buffer {
  const bytes = address.split(".").map(Number);
  const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, ...bytes]);
  const reply = Buffer.concat([refusal(message, 0), record]);
  reply.writeUInt16BE(1, 6);
  return reply;
}

/** The same with the name in lower case, as a few servers give it back. */
function lowered(reply: Buffer): Buffer {
  const end = questionEnd(reply) - 4;
  const lower = Buffer.from(reply);
  lower.set(Buffer.from(reply.toString("latin1", headerBytes, end).toLowerCase(), "latin1"), 12);
  return lower;
}

function hasEDNS(message: Buffer): boolean {
  return (decode(message).additionals ?? []).some(({ type }) => type === "OPT");
}

/** Those of the messages that are about `name`. */
function about(server: RawNameServer, name: string): readonly Buffer[] {
  return server.messages
    .filter(({ message }) => decode(message).questions?.[0]?.name.toLowerCase() === name)
    .map(({ message }) => message);
}

describe("servers of the host", () => {
  it("are asked with EDNS, and without it when they do not know it", async () => {
    for (const [what, old] of [
      ["FORMERR", (message: Buffer) => refusal(message, 1)],
      ["NOTIMP", (message: Buffer) => refusal(message, 4)],
      [
        // As some did that were made before there was EDNS.
        "a header alone",
        (message: Buffer) => {
          const header = Buffer.from(refusal(message, 1).subarray(0, headerBytes));
          header.writeUInt16BE(0, 4);
          return header;
        },
      ],
    ] as const) {
      await using upstream = await RawNameServer.start((message) =>
        hasEDNS(message) ? old(message) : answered(message),
      );
      await using server = await Running.start(() => [at(upstream)]);
      assert.deepEqual(data(await server.ask("one.test")), ["192.0.2.1"], what);
      assert.deepEqual(data(await server.ask("two.test")), ["192.0.2.1"], what);
      assert.deepEqual(about(upstream, "one.test").map(hasEDNS), [true, false], what);
      assert.deepEqual(about(upstream, "two.test").map(hasEDNS), [false], what);
    }
  });

  it("behind a firewall that drops EDNS are asked without, once they were silent", async () => {
    await using upstream = await RawNameServer.start((message) =>
      hasEDNS(message) ? undefined : answered(message),
    );
    await using server = await Running.start(() => [at(upstream)], hasty);
    assert.deepEqual(data(await server.ask("one.test")), ["192.0.2.1"]);
    assert.deepEqual(data(await server.ask("two.test")), ["192.0.2.1"]);
    assert.deepEqual(about(upstream, "one.test").map(hasEDNS), [true, false]);
    assert.deepEqual(about(upstream, "two.test").map(hasEDNS), [false]);
  });

  it("that say FORMERR to everything are not taken for old, and the next is asked", async () => {
    await using broken = await RawNameServer.start((message) => refusal(message, 1));
    await using good = await RawNameServer.start((message) => answered(message));
    await using server = await Running.start(() => [at(broken), at(good)]);
    assert.deepEqual(data(await server.ask("one.test")), ["192.0.2.1"]);
    await server.ask("two.test");
    assert.deepEqual(about(broken, "two.test").map(hasEDNS), [true, false]);
  });

  it("must spell the name as they were asked", async () => {
    await using upstream = await RawNameServer.start((message) => answered(message));
    await using server = await Running.start(() => [at(upstream)]);
    const long = "abcdefghijklmnopqrstuvwxyz.test";
    const reply = await server.ask(long);
    assert.equal(reply.questions?.[0]?.name, long, "as the asker spelled it");
    assert.equal(reply.answers?.[0]?.name, long);
    const [asked] = about(upstream, long);
    assert.ok(asked !== undefined);
    const spelled = decode(asked).questions?.[0]?.name ?? "";
    assert.match(spelled, /[a-z].*[A-Z]|[A-Z].*[a-z]/);
  });

  it("that change the case of names are asked by TCP once, and then as they like it", async () => {
    await using upstream = await RawNameServer.start((message) => lowered(answered(message)));
    await using server = await Running.start(() => [at(upstream)]);
    assert.deepEqual(data(await server.ask("a-name-of-many-letters.test")), ["192.0.2.1"]);
    assert.deepEqual(data(await server.ask("another-name-of-letters.test")), ["192.0.2.1"]);
    assert.deepEqual(
      upstream.messages.map(({ transport }) => transport),
      ["udp", "tcp", "udp"],
    );
  });

  it("that change the case and have no TCP are believed the second time", async () => {
    await using upstream = await RawNameServer.start(
      (message) => lowered(answered(message)),
      false,
    );
    await using server = await Running.start(() => [at(upstream)]);
    assert.deepEqual(data(await server.ask("a-name-of-many-letters.test")), ["192.0.2.1"]);
    assert.equal(upstream.messages.length, 2);
  });

  it("whose answers are mixed with many that answer something else are asked by TCP", async () => {
    const counted: string[] = [];
    await using upstream = await RawNameServer.start((message, transport) => {
      if (transport === "tcp") return answered(message, "192.0.2.2");
      return Array.from({ length: 40 }, (_, index) => {
        const forged = answered(message, "203.0.113.1");
        forged.writeUInt16BE((message.readUInt16BE(0) + 1 + index) & 0xffff, 0);
        return forged;
      });
    });
    await using server = await Running.start(() => [at(upstream)], {
      count: (event) => counted.push(event),
    });
    assert.deepEqual(data(await server.ask("victim.test")), ["192.0.2.2"]);
    assert.ok(counted.filter((event) => event === "stray").length >= 16);
  });

  it("are not believed about another name, type, id, or by a question", async () => {
    const forgeries: readonly ((good: Buffer) => Buffer)[] = [
      (good) => Buffer.from(good).fill(0x78, 13, 14),
      (good) => {
        const other = Buffer.from(good);
        other.writeUInt16BE(28, questionEnd(good) - 4);
        return other;
      },
      (good) => {
        const other = Buffer.from(good);
        other.writeUInt16BE(good.readUInt16BE(0) ^ 1, 0);
        return other;
      },
      (good) => {
        const question = Buffer.from(good);
        question.writeUInt16BE(0x0100, 2);
        return question;
      },
      (good) => good.subarray(0, 11),
      () => Buffer.alloc(0),
      (good) => {
        const none = Buffer.from(good);
        none.writeUInt16BE(0, 4);
        return none;
      },
    ];
    for (const [index, forge] of forgeries.entries()) {
      await using upstream = await RawNameServer.start((message) => [
        forge(answered(message, "203.0.113.1")),
        answered(message, "192.0.2.7"),
      ]);
      await using server = await Running.start(() => [at(upstream)]);
      assert.deepEqual(data(await server.ask("name.test")), ["192.0.2.7"], `forgery ${index}`);
    }
  });

  it("that send garbage by UDP are asked by TCP, and given up when that is garbage too", async () => {
    const garbage = (message: Buffer): Buffer => {
      const bad = answered(message);
      bad.writeUInt16BE(9, 6);
      return bad;
    };
    await using half = await RawNameServer.start((message, transport) =>
      transport === "udp" ? garbage(message) : answered(message),
    );
    await using one = await Running.start(() => [at(half)]);
    assert.deepEqual(data(await one.ask("name.test")), ["192.0.2.1"]);
    await using whole = await RawNameServer.start(garbage);
    await using two = await Running.start(() => [at(whole)]);
    assert.equal((await two.ask("name.test")).rcode, "SERVFAIL");
  });

  it("without TCP may have their answers cut", async () => {
    await using upstream = await RawNameServer.start((message) => {
      const reply = answered(message);
      reply.writeUInt16BE(response | TRUNCATED_RESPONSE, 2);
      return reply;
    }, false);
    await using server = await Running.start(() => [at(upstream)]);
    const reply = await server.ask("big.test");
    assert.ok(reply.flag_tc);
    assert.deepEqual(data(reply), ["192.0.2.1"]);
  });

  it("an upper rcode that only EDNS carries is a refusal", async () => {
    await using odd = await RawNameServer.start((message) => {
      // BADCOOKIE, 23: 1 in the OPT record, 7 in the header.
      const opt = Buffer.from([0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]);
      const reply = Buffer.concat([refusal(message, 7), opt]);
      reply.writeUInt16BE(1, 10);
      return reply;
    });
    await using good = await RawNameServer.start((message) => answered(message));
    await using server = await Running.start(() => [at(odd), at(good)]);
    assert.deepEqual(data(await server.ask("name.test")), ["192.0.2.1"]);
  });

  it("one that comes back is asked first again", async () => {
    let silent = true;
    await using first = await RawNameServer.start((message) =>
      silent ? undefined : answered(message, "192.0.2.1"),
    );
    await using second = await RawNameServer.start((message) => answered(message, "192.0.2.2"));
    const news: (() => void)[] = [];
    const change = (): Promise<void> => new Promise((resolve) => news.push(resolve));
    const logger: Logger = {
      log: (_level, _msg, fields = {}) => {
        if ("down" in fields) for (const tell of news.splice(0)) tell();
      },
      child: () => logger,
    };
    await using server = await Running.start(() => [at(first), at(second)], { ...hasty, logger });
    const down = change();
    assert.deepEqual(data(await server.ask("a.test")), ["192.0.2.2"]);
    await down;
    const up = change();
    assert.deepEqual(data(await server.ask("b.test")), ["192.0.2.2"]);
    assert.equal(about(first, "b.test").length, 0);
    silent = false;
    await up;
    assert.deepEqual(data(await server.ask("c.test")), ["192.0.2.1"]);
  });

  it("a slow answer makes nobody down who answers what he must know", async () => {
    await using first = await RawNameServer.start((message) =>
      decode(message).questions?.[0]?.name.toLowerCase() === "slow.test"
        ? undefined
        : answered(message, "192.0.2.1"),
    );
    await using second = await RawNameServer.start((message) => answered(message, "192.0.2.2"));
    await using server = await Running.start(() => [at(first), at(second)], hasty);
    assert.deepEqual(data(await server.ask("slow.test")), ["192.0.2.2"]);
    assert.deepEqual(data(await server.ask("other.test")), ["192.0.2.1"]);
  });

  it("that are all down are asked side by side", async () => {
    let silent = true;
    const script = (message: Buffer): Buffer | undefined =>
      silent ? undefined : answered(message);
    await using dead = await RawNameServer.start(() => undefined);
    await using back = await RawNameServer.start(script);
    let downs = 0;
    const both = Promise.withResolvers<void>();
    const logger: Logger = {
      log: (_level, _msg, { down } = {}) => {
        if (down === true && (downs += 1) === 2) both.resolve();
      },
      child: () => logger,
    };
    const options = { ...hasty, logger, totalMs: 300 };
    await using server = await Running.start(() => [at(dead), at(back)], options);
    assert.equal((await server.ask("a.test")).rcode, "SERVFAIL");
    await both.promise;
    silent = false;
    assert.deepEqual(data(await server.ask("b.test")), ["192.0.2.1"]);
  });

  it("in turn, by TCP only, more than once: as resolv.conf says", async () => {
    await using one = await RawNameServer.start((message) => answered(message));
    await using two = await RawNameServer.start((message) => answered(message));
    const asking = { rotate: true, tcpOnly: true };
    await using server = await Running.start(() => [at(one), at(two)], { asking: () => asking });
    for (let turn = 0; turn < 4; turn += 1) await server.ask(`${turn}.test`);
    for (const { messages } of [one, two]) {
      assert.deepEqual(
        messages.map(({ transport }) => transport),
        ["tcp", "tcp"],
      );
    }
    let lost = 2;
    await using lossy = await RawNameServer.start((message) =>
      (lost -= 1) >= 0 ? undefined : answered(message),
    );
    const patient = { asking: () => ({ attempts: 3 }), tryMs: 150 };
    await using third = await Running.start(() => [at(lossy)], patient);
    assert.deepEqual(data(await third.ask("name.test")), ["192.0.2.1"]);
  });
});

describe("a question that is given up", () => {
  it("at whatever moment leaves nothing behind that could go off", async () => {
    await using upstream = await RawNameServer.start((message) => answered(message));
    const message = encode({ type: "query", id: 1, questions: [{ name: "a.test", type: "A" }] });
    const outgoing = { message, id: 1, question: message.subarray(headerBytes) };
    const moments: readonly ((abort: () => void) => unknown)[] = [
      (abort) => abort(),
      (abort) => queueMicrotask(abort),
      (abort) => process.nextTick(abort),
      (abort) => setImmediate(abort),
      (abort) => void Promise.resolve().then(() => queueMicrotask(abort)),
    ];
    const surprises: unknown[] = [];
    const onSurprise = (error: unknown): unknown => surprises.push(error);
    process.on("uncaughtException", onSurprise);
    for (let turn = 0; turn < 200; turn += 1) {
      for (const ask of [askUDP, askTCP]) {
        const given = new AbortController();
        moments[turn % moments.length]?.(() => given.abort(new Error("given up")));
        // As a promise's continuation, which comes before what was put off to the next turn.
        await Promise.resolve();
        await ask(at(upstream), outgoing, given.signal).catch(() => undefined);
      }
    }
    await new Promise((resolve) => setImmediate(resolve));
    process.off("uncaughtException", onSurprise);
    assert.deepEqual(surprises, []);
  });
});

describe("servers that do anything at all", () => {
  it("leave every asker with an answer, and the name server as it was", async () => {
    let state = 20_261_122;
    const chance = (below: number): number => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const noise = (): Buffer => Buffer.from(Array.from({ length: chance(80) }, () => chance(256)));
    const tricks: readonly ((message: Buffer) => Buffer | readonly Buffer[] | undefined)[] = [
      (message) => answered(message),
      (message) => answered(message),
      () => undefined,
      noise,
      (message) => lowered(answered(message)),
      (message) => refusal(message, chance(16)),
      (message) => answered(message).subarray(0, chance(40)),
      (message) => {
        const cut = answered(message);
        cut.writeUInt16BE(response | TRUNCATED_RESPONSE, 2);
        return cut;
      },
      (message) => {
        const changed = answered(message);
        for (let count = chance(6); count > 0; count -= 1) {
          changed[chance(changed.length)] = chance(256);
        }
        return changed;
      },
      (message) => [noise(), Buffer.concat([answered(message), noise()])],
    ];
    const script = (message: Buffer): Buffer | readonly Buffer[] | undefined =>
      tricks[chance(tricks.length)]?.(message);
    await using one = await RawNameServer.start(script);
    await using two = await RawNameServer.start(script, false);
    const options = { tryMs: 40, totalMs: 160 };
    await using server = await Running.start(() => [at(one), at(two)], options);
    for (let round = 0; round < 6; round += 1) {
      const replies = Array.from({ length: 50 }, async (_, index) => {
        const name = `${round}-${index}.Some-Name.test`;
        const message = encode({ type: "query", id: index, questions: [{ name, type: "A" }] });
        const question = message.subarray(headerBytes);
        const ask = index % 5 === 0 ? askTCP : askUDP;
        const outgoing = { message, id: index, question, exactCase: true };
        const reply = await ask(at(server), outgoing, AbortSignal.timeout(5000));
        assert.notEqual(readReply(reply, question, 30), undefined, "and none is malformed");
      });
      await Promise.all(replies);
    }
    assert.deepEqual(data(await server.ask(names.web)), ["10.96.0.7"]);
  });
});

describe("many names that nobody answers", () => {
  it("get less time the more there are", async () => {
    await using silent = await RawNameServer.start(() => undefined);
    const options = { tryMs: 400, totalMs: 800, mostUnderWay: 10 };
    await using server = await Running.start(() => [at(silent)], options);
    const ended: number[] = [];
    await Promise.all(
      Array.from({ length: 9 }, async (_, index) => {
        await server.ask(`${index}.test`);
        ended.push(index);
      }),
    );
    assert.ok(ended.indexOf(8) < ended.indexOf(0), ended.join(" "));
  });
});

describe("what is kept", () => {
  it("a failure for a second, so that a storm of questions stays here", async () => {
    let asked = 0;
    let now = 0;
    const clock = { ...systemClock, monotonic: () => now };
    await using upstream = await RawNameServer.start((message) => {
      asked += 1;
      return refusal(message, 2);
    });
    await using server = await Running.start(() => [at(upstream)], { clock });
    for (let turn = 0; turn < 5; turn += 1) {
      assert.equal((await server.ask("bad.test")).rcode, "SERVFAIL");
    }
    assert.equal(asked, 1);
    now += 1001;
    await server.ask("bad.test");
    assert.equal(asked, 2);
  });

  it("no name that is not there for longer than its zone says", async () => {
    let now = 0;
    const clock = { ...systemClock, monotonic: () => now };
    const soa = { mname: "a", rname: "b", serial: 1, refresh: 1, retry: 1, expire: 1, minimum: 3 };
    const counted: string[] = [];
    await using upstream = await FakeNameServer.start(() => ({
      rcode: 3,
      authorities: [{ name: "test", type: "SOA", ttl: 60, data: soa }],
    }));
    const count = (event: string): unknown => counted.push(event);
    await using server = await Running.start(() => [at(upstream)], { clock, count });
    const ask = async (): Promise<unknown> => {
      const { rcode, authorities } = await server.ask("gone.test");
      return [rcode, authorities?.[0]?.type];
    };
    assert.deepEqual(await ask(), ["NXDOMAIN", "SOA"]);
    now += 2900;
    assert.deepEqual(await ask(), ["NXDOMAIN", "SOA"]);
    assert.equal(upstream.asked.length, 1);
    now += 200;
    assert.deepEqual(await ask(), ["NXDOMAIN", "SOA"]);
    assert.equal(upstream.asked.length, 2);
    assert.deepEqual(
      counted.filter((event) => event.startsWith("cache")),
      ["cacheMiss", "cacheDenial", "cacheMiss"],
    );
  });

  it("nothing about names that were not asked for", async () => {
    const extra: Answer[] = [a("bank.test", "203.0.113.1"), a("www.bank.test", "203.0.113.1")];
    await using upstream = await FakeNameServer.start(({ name }) => ({
      answers: [a(name, "192.0.2.1"), ...(name === "bait.test" ? extra : [])],
    }));
    await using server = await Running.start(() => [at(upstream)]);
    await server.ask("bait.test");
    assert.deepEqual(data(await server.ask("bank.test")), ["192.0.2.1"]);
  });

  it("behind an ExternalName only what its name leads to, growing older", async () => {
    let now = 0;
    const clock = { ...systemClock, monotonic: () => now };
    await using upstream = await FakeNameServer.start(() => ({
      answers: [
        a("other.test", "203.0.113.1"),
        { name: "www.example.test", type: "CNAME", ttl: 20, data: "Host.example.test" },
        a("host.example.test", "192.0.2.9", 20),
      ],
    }));
    await using server = await Running.start(() => [at(upstream)], { clock });
    await server.ask(names.far);
    now += 5000;
    const { answers = [] } = await server.ask(names.far);
    assert.deepEqual(
      answers.map((each) => ("ttl" in each ? [each.name, each.ttl] : [])),
      [
        [names.far, 5],
        ["www.example.test", 15],
        ["host.example.test", 15],
      ],
    );
    assert.equal(upstream.asked.length, 1);
  });

  it("of a name outside that an ExternalName means and that is not there, its zone's word", async () => {
    const soa = { mname: "a", rname: "b", serial: 1, refresh: 1, retry: 1, expire: 1, minimum: 3 };
    await using upstream = await FakeNameServer.start(() => ({
      rcode: 3,
      authorities: [{ name: "example.test", type: "SOA", ttl: 60, data: soa }],
    }));
    await using server = await Running.start(() => [at(upstream)]);
    const reply = await server.ask(names.far);
    assert.equal(reply.rcode, "NXDOMAIN");
    assert.deepEqual(data(reply), ["www.example.test"]);
    assert.equal(reply.authorities?.[0]?.name, "example.test");
  });
});

describe("EDNS between the asker and us", () => {
  const opt = (dnssecOK: boolean): Answer => ({
    type: "OPT",
    name: ".",
    udpPayloadSize: 1232,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: dnssecOK ? 0x8000 : 0,
    flag_do: dnssecOK,
    options: [],
  });

  it("is answered where it was spoken, whatever the server upstream does", async () => {
    const options: boolean[] = [];
    await using upstream = await RawNameServer.start((message) => {
      options.push(hasEDNS(message));
      return answered(message);
    });
    await using server = await Running.start(() => [at(upstream)]);
    for (const [index, additionals] of [[], [opt(false)], [opt(true)]].entries()) {
      const message = encode({
        type: "query",
        id: 5,
        flags: 0x100,
        questions: [{ name: `${index}.test`, type: "A" }],
        additionals,
      });
      const question = message.subarray(headerBytes, questionEnd(message));
      const target = { address: loopback, port: server.port };
      const reply = await askUDP(target, { message, id: 5, question }, AbortSignal.timeout(5000));
      const [own] = decode(reply).additionals ?? [];
      assert.equal(own?.type, additionals.length === 0 ? undefined : "OPT");
      if (own?.type === "OPT") assert.equal(own.flag_do, index === 2);
    }
    assert.deepEqual(options, [true, true, true]);
  });

  it("options of the server upstream stay here", async () => {
    await using upstream = await RawNameServer.start((message) => {
      // A cookie, which is between two.
      const rdata = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
      const record = Buffer.from([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, rdata.length, ...rdata]);
      const reply = Buffer.concat([answered(message), record]);
      reply.writeUInt16BE(1, 10);
      return reply;
    });
    await using server = await Running.start(() => [at(upstream)]);
    const reply = await server.ask("name.test");
    assert.deepEqual(data(reply), ["192.0.2.1"]);
    assert.deepEqual(reply.additionals, []);
  });
});

describe("a circle by way of another machine", () => {
  /** Two name servers that ask each other; `forwarded` counts their questions. */
  async function circle(
    isOwnQuestion?: (name: string) => boolean,
  ): Promise<AsyncDisposable & { here: Running; there: Running; forwarded: () => number }> {
    let forwarded = 0;
    const more = {
      ...hasty,
      count: (event: string): void => void (event === "forwarded" ? (forwarded += 1) : 0),
    };
    let other: Running | undefined;
    const here = await Running.start(
      () => (other === undefined ? [] : [at(other)]),
      more,
      isOwnQuestion,
    );
    const there = await Running.start(() => [at(here)], more);
    other = there;
    return {
      here,
      there,
      forwarded: () => forwarded,
      async [Symbol.asyncDispose]() {
        await Promise.all([here[Symbol.asyncDispose](), there[Symbol.asyncDispose]()]);
      },
    };
  }

  it("is found by a question that comes back, though no server of the host is on this one", async () => {
    const loops: string[] = [];
    const check = new LoopCheck({
      logger: silentLogger,
      random: nextRandom,
      onLoop: (address) => loops.push(address),
    });
    await using both = await circle((name) => check.recognise(name));
    await check.check([at(both.there)], new AbortController().signal);
    assert.deepEqual(loops, [loopback]);
  });

  it("multiplies no question while it is not found", async () => {
    await using both = await circle();
    assert.equal((await both.here.ask("name.test")).rcode, "SERVFAIL");
    // Each asks the other twice, and so about the root when it looks after the silent one.
    assert.ok(both.forwarded() <= 12, String(both.forwarded()));
  });
});
