import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";

import { type Answer, encode } from "dns-packet";

import { framed, FrameReader } from "../../../src/dns/exchange.ts";
import { HostServers } from "../../../src/dns/host-servers.ts";
import { LoopCheck } from "../../../src/dns/loop-check.ts";
import { DnsServer } from "../../../src/dns/server.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { type Logger, silentLogger } from "../../../src/lib/log.ts";
import { FakeNameServer, freePort, type Script } from "../../fakes/name-server.ts";
import { RawNameServer } from "../../fakes/raw-name-server.ts";
import { a, at, data, hasty, loopback, names, nextRandom, Running } from "./running.ts";

/** The same message as a reply without records. */
function replyTo(message: Buffer): Buffer {
  const reply = Buffer.from(message);
  reply.writeUInt16BE(0x8180, 2);
  return reply;
}

describe("the name server", () => {
  it("answers cluster names by UDP and TCP without asking anybody", async () => {
    await using upstream = await FakeNameServer.start(() => ({ rcode: 3 }));
    await using server = await Running.start(() => [at(upstream)]);
    for (const transport of ["udp", "tcp"] as const) {
      assert.deepEqual(data(await server.ask(names.web, "A", transport)), ["10.96.0.7"]);
    }
    assert.deepEqual(data(await server.ask(names.alias)), [names.web, "10.96.0.7"]);
    const gone = await server.ask("no.default.svc.cluster.local");
    assert.equal(gone.rcode, "NXDOMAIN");
    assert.equal(gone.authorities?.[0]?.type, "SOA");
    assert.deepEqual(upstream.asked, []);
  });

  it("an alias in a circle ends", async () => {
    await using server = await Running.start(() => []);
    assert.equal((await server.ask(names.circle)).rcode, "SERVFAIL");
  });

  it("passes other names on, and remembers the answer", async () => {
    const script: Script = ({ name }) => ({ answers: [a(name, "192.0.2.1")] });
    await using upstream = await FakeNameServer.start(script);
    await using server = await Running.start(() => [at(upstream)]);
    const [first, second] = [await server.ask("example.test"), await server.ask("EXAMPLE.test")];
    assert.deepEqual(data(first), ["192.0.2.1"]);
    assert.equal(second.questions?.[0]?.name, "EXAMPLE.test");
    const [answer] = second.answers ?? [];
    assert.ok(answer !== undefined && "ttl" in answer && answer.ttl === 30, "capped");
    assert.deepEqual(upstream.asked, ["UDP A example.test"]);
    await server.ask("example.test", "AAAA");
    assert.equal(upstream.asked.length, 2);
  });

  it("asks once for many who ask at the same time, from another port each time", async () => {
    await using upstream = await FakeNameServer.start(({ name }) => ({
      answers: [a(name, "192.0.2.1", 0)],
    }));
    await using server = await Running.start(() => [at(upstream)]);
    await Promise.all(Array.from({ length: 20 }, () => server.ask("example.test")));
    assert.ok(upstream.asked.length < 5, String(upstream.asked.length));
    for (let turn = 0; turn < 8; turn += 1) await server.ask(`${turn}.test`);
    assert.ok(new Set(upstream.sources.map(({ port }) => port)).size > 4, "source ports");
    assert.ok(new Set(upstream.sources.map(({ id }) => id)).size > 4, "ids");
  });

  it("follows an ExternalName", async () => {
    await using upstream = await FakeNameServer.start(({ name, type }) =>
      type === "A"
        ? {
            answers: [
              { name, type: "CNAME", ttl: 9, data: "host.example.test" },
              a("host.example.test", "192.0.2.9"),
            ],
          }
        : {},
    );
    await using server = await Running.start(() => [at(upstream)]);
    const reply = await server.ask(names.far);
    assert.deepEqual(data(reply), ["www.example.test", "host.example.test", "192.0.2.9"]);
    assert.equal(reply.rcode, "NOERROR");
    assert.deepEqual(data(await server.ask(names.far, "AAAA")), ["www.example.test"]);
    assert.deepEqual(data(await server.ask(names.far, "SRV")), ["www.example.test"]);
  });

  it("goes to TCP for what does not fit, and cuts it for who asked by UDP", async () => {
    const many = (name: string): Answer[] =>
      Array.from({ length: 40 }, (_, index) => a(name, `192.0.2.${index}`));
    await using upstream = await FakeNameServer.start(({ name }, transport) =>
      transport === "tcp" ? { answers: many(name) } : { truncated: true },
    );
    await using server = await Running.start(() => [at(upstream)]);
    const short = await server.ask("big.test");
    assert.ok(short.flag_tc && data(short).length > 0 && data(short).length < 40);
    assert.equal(data(await server.ask("big.test", "A", "tcp")).length, 40);
    assert.deepEqual(upstream.asked, ["UDP A big.test", "TCP A big.test"]);
  });

  it("goes on to the next server, and asks a silent one last afterwards", async () => {
    await using silent = await FakeNameServer.start(() => undefined);
    await using broken = await FakeNameServer.start(() => ({ rcode: 2 }));
    await using good = await FakeNameServer.start(({ name }) => ({
      answers: [a(name, "192.0.2.2")],
    }));
    const down = Promise.withResolvers<void>();
    const logger: Logger = {
      log: (_level, _msg, fields = {}) => (fields["down"] === true ? down.resolve() : undefined),
      child: () => logger,
    };
    const servers = () => [at(silent), at(broken), at(good)];
    await using server = await Running.start(servers, { ...hasty, logger });
    assert.deepEqual(data(await server.ask("one.test")), ["192.0.2.2"]);
    await down.promise;
    assert.deepEqual(data(await server.ask("two.test")), ["192.0.2.2"]);
    assert.equal(silent.asked.length, 1);
    assert.ok(silent.probes > 0);
    assert.equal(broken.asked.length, 2);
  });

  it("says SERVFAIL when nobody answers, nobody is there, or nobody is known", async () => {
    await using silent = await FakeNameServer.start(() => undefined);
    await using one = await Running.start(() => [at(silent)], hasty);
    assert.equal((await one.ask("a.test")).rcode, "SERVFAIL");
    const port = await freePort();
    await using two = await Running.start(() => [{ address: loopback, port }], { tryMs: 30_000 });
    assert.equal((await two.ask("a.test")).rcode, "SERVFAIL");
    await using three = await Running.start(() => []);
    assert.equal((await three.ask("a.test")).rcode, "SERVFAIL");
    assert.deepEqual(data(await three.ask(names.web)), ["10.96.0.7"]);
  });

  it("refuses questions beyond those that may be under way", async () => {
    await using silent = await FakeNameServer.start(() => undefined);
    await using server = await Running.start(() => [at(silent)], { ...hasty, mostUnderWay: 3 });
    const asked = Array.from({ length: 6 }, (_, index) => server.ask(`${index}.test`));
    await Promise.all(asked);
    assert.equal(new Set(silent.asked).size, 3);
  });

  it("lets no more wait for one question than it can hold", async () => {
    const refused = Promise.withResolvers<void>();
    await using slow = await RawNameServer.start((message) =>
      refused.promise.then(() => replyTo(message)),
    );
    await using server = await Running.start(() => [at(slow)], { mostWaiting: 3 });
    let refusals = 0;
    const replies = Array.from({ length: 6 }, async () => {
      const { rcode } = await server.ask("same.test");
      if (rcode === "SERVFAIL" && (refusals += 1) === 3) refused.resolve();
      return rcode;
    });
    assert.deepEqual((await Promise.all(replies)).toSorted(), [
      ...Array.from({ length: 3 }, () => "NOERROR"),
      ...Array.from({ length: 3 }, () => "SERVFAIL"),
    ]);
  });

  it("takes no answer from anybody but whom it asked, and none to another question", async () => {
    await using upstream = await FakeNameServer.start(() => undefined);
    await using server = await Running.start(() => [at(upstream)], hasty);
    const asking = server.ask("victim.test");
    while (upstream.sources.length === 0) await systemClock.sleep(1, AbortSignal.timeout(5000));
    const [{ port, id } = { port: 0, id: 0 }] = upstream.sources;
    const forger = createSocket("udp4");
    const forged = encode({
      type: "response",
      id,
      questions: [{ name: "victim.test", type: "A" }],
      answers: [a("victim.test", "203.0.113.1")],
    });
    forger.send(forged, port, loopback);
    assert.equal((await asking).rcode, "SERVFAIL");
    forger.close();
    await once(forger, "close");
  });

  it("serves many questions of one connection, and ends one that breaks the rules", async () => {
    await using server = await Running.start(() => []);
    const socket = connect(server.port, loopback);
    const message = encode({ type: "query", id: 1, questions: [{ name: names.web, type: "A" }] });
    const both = Buffer.concat([framed(message), framed(message)]);
    // In pieces, as a slow network brings them.
    socket.write(both.subarray(0, 1));
    socket.write(both.subarray(1, 30));
    socket.write(both.subarray(30));
    const frames = new FrameReader(65_535);
    const replies: Buffer[] = [];
    for await (const chunk of socket) {
      replies.push(...frames.push(chunk as Buffer));
      if (replies.length < 2) continue;
      socket.write(Buffer.from([0xff, 0xff, 0]));
      break;
    }
    assert.equal(replies.length, 2);
    socket.destroy();
    const rude = connect(server.port, loopback);
    rude.write(Buffer.from([0xff, 0xff, 0]));
    rude.resume();
    await once(rude, "close");
  });

  it("outlives nonsense", async () => {
    await using server = await Running.start(() => []);
    const socket = createSocket("udp4");
    for (let turn = 0; turn < 200; turn += 1) {
      const bytes = Buffer.from(
        Array.from({ length: turn * 3 }, () => Math.floor(nextRandom() * 256)),
      );
      await new Promise((resolve) => socket.send(bytes, server.port, loopback, resolve));
    }
    socket.close();
    assert.deepEqual(data(await server.ask(names.web)), ["10.96.0.7"]);
  });

  it("waits for an address that the machine does not have, and for a port that others have", async () => {
    const port = await freePort();
    const holder = await FakeNameServer.start(() => undefined, loopback, port);
    const stop = new AbortController();
    const listening = Promise.withResolvers<string>();
    const server = new DnsServer({
      resolver: { answer: () => undefined },
      addresses: [loopback],
      port,
      clock: systemClock,
      logger: silentLogger,
      onListening: () => listening.resolve("listening"),
      retryMs: 2,
    });
    const done = server.run(stop.signal);
    const soon = systemClock.sleep(20, stop.signal).then(() => "not yet");
    assert.equal(await Promise.race([listening.promise, soon]), "not yet");
    await holder[Symbol.asyncDispose]();
    await listening.promise;
    stop.abort();
    await done;
  });
});

describe("the host's name servers", () => {
  let directory = "";
  let file = "";
  let now = 0;
  const clock = { ...systemClock, monotonic: () => now };
  const changes: string[] = [];
  const create = (ownIPs: readonly string[], resolved = ""): HostServers =>
    new HostServers({
      resolvConf: file,
      ownIPs,
      clock,
      logger: silentLogger,
      onChange: (servers) => changes.push(servers.map(({ address }) => address).join(" ")),
      ...(resolved === ""
        ? {}
        : {
            read: async (path) =>
              path.startsWith("/run/systemd") ? resolved : "nameserver 127.0.0.53\n",
          }),
    });
  const current = async (servers: HostServers): Promise<string> =>
    (await servers.current()).map(({ address }) => address).join(" ");

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "remora-dns-"));
    file = join(directory, "resolv.conf");
  });
  after(async () => rm(directory, { recursive: true }));
  beforeEach(async () => {
    changes.length = 0;
    await writeFile(file, "# x\nnameserver 192.0.2.1\nnameserver  2001:DB8::1 \nnameserver bad\n");
  });
  afterEach(() => (now += 100_000));

  it("are read from resolv.conf, and again when it changes", async () => {
    const servers = create([]);
    assert.equal(await current(servers), "192.0.2.1 2001:db8::1");
    await writeFile(file, "nameserver 192.0.2.2\nnameserver fe80::1%eth0\n");
    assert.equal(await current(servers), "192.0.2.1 2001:db8::1", "for a second");
    now += 1001;
    assert.equal(await current(servers), "192.0.2.2 fe80::1%eth0");
    await rm(file);
    now += 1001;
    assert.equal(await current(servers), "");
    assert.deepEqual(changes, ["192.0.2.1 2001:db8::1", "192.0.2.2 fe80::1%eth0", ""]);
  });

  it("are asked as the file says", async () => {
    const servers = create([]);
    const say = async (options: string): Promise<unknown> => {
      await writeFile(file, `nameserver 192.0.2.1\nnameserver 192.0.2.2\n${options}`);
      now += 1001;
      await servers.current();
      return servers.asking();
    };
    const plain = { rotate: false, tcpOnly: false };
    assert.deepEqual(await say("search example.org\n#options rotate\n"), plain);
    assert.deepEqual(await say("options timeout:1 attempts:3 rotate ndots:5\n"), {
      attempts: 3,
      tryMs: 1000,
      totalMs: 6000,
      rotate: true,
      tcpOnly: false,
    });
    assert.deepEqual(await say("options timeout:99\noptions attempts:99 use-vc"), {
      attempts: 5,
      tryMs: 30_000,
      totalMs: 15_000,
      rotate: false,
      tcpOnly: true,
    });
    assert.deepEqual(await say("options timeout:1\noptions timeout:x attempts:0\n"), plain);
    assert.deepEqual(changes, ["192.0.2.1 192.0.2.2"], "the same servers all the time");
  });

  it("are systemd-resolved's own where the file only names its stub", async () => {
    assert.equal(await current(create([], "nameserver 192.0.2.53\n")), "192.0.2.53");
    assert.equal(await current(create([], "# nothing\n")), "127.0.0.53");
  });

  it("are never ourselves, nor who turned out to ask us", async () => {
    const servers = create(["192.0.2.1"]);
    assert.equal(await current(servers), "2001:db8::1");
    servers.exclude("2001:db8::1");
    now += 1001;
    assert.equal(await current(servers), "");
    now += 11 * 60_000;
    assert.equal(await current(servers), "2001:db8::1", "somebody may have put it right");
    assert.equal(changes.length, 2, "and is looked at again");
    servers.exclude("2001:db8::1");
    await writeFile(file, "nameserver 2001:db8::1\n");
    now += 1001;
    assert.equal(await current(servers), "2001:db8::1", "another file is another chance");
  });
});

describe("a circle of name servers", () => {
  it("is found by a question that comes back", async () => {
    let seen: string | undefined;
    const loops: string[] = [];
    const check = new LoopCheck({
      logger: silentLogger,
      random: nextRandom,
      onLoop: (address) => loops.push(address),
    });
    await using local = await FakeNameServer.start(({ name }) => {
      // As a forwarder would that asks us.
      seen = name;
      return check.recognise(name) ? { rcode: 5 } : { rcode: 3 };
    });
    await check.check(
      [at(local), { address: "192.0.2.1", port: 53 }],
      new AbortController().signal,
    );
    assert.deepEqual(loops, [loopback]);
    assert.equal(check.recognise(seen ?? ""), false, "it means nothing afterwards");
  });
});
