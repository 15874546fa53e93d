import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { decode, encode } from "dns-packet";

import { createNameServer, type NameServer } from "../../src/dns/name-server.ts";
import { parseDnsService, parseDnsSlice } from "../../src/dns/parse.ts";
import type { RecordsUpdate } from "../../src/dns/types.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { FakeNameServer } from "../fakes/name-server.ts";
import { insideOwnNamespace, sh } from "./namespace.ts";

const four = "10.96.0.10";
const six = "fd00:10:96::a";
const upstreamIP = "127.0.0.5";
const svc = "svc.cluster.local";

/** The rest of a reason to skip; false when the program is there. */
function lacks(program: string, debianPackage: string): string | false {
  try {
    execFileSync("sh", ["-c", `command -v ${program}`], { stdio: "ignore" });
    return false;
  } catch {
    return `${program} is not installed (Debian: ${debianPackage})`;
  }
}

/** What a program prints, whatever its exit code. */
async function output(...argv: [string, ...string[]]): Promise<string> {
  const [file, ...args] = argv;
  return new Promise((resolve) => {
    execFile(file, args, { timeout: 10_000 }, (_error, stdout, stderr) => {
      resolve(`${stdout}${stderr}`);
    });
  });
}

function records(): RecordsUpdate {
  const service = (name: string, spec: Record<string, unknown>) =>
    parseDnsService({ metadata: { namespace: "default", name }, spec });
  const slice = (
    name: string,
    of: string,
    endpoints: readonly object[],
    addressType: "IPv4" | "IPv6" = "IPv4",
  ) =>
    parseDnsSlice({
      metadata: {
        namespace: "default",
        name,
        labels: { "kubernetes.io/service-name": of },
      },
      addressType,
      ports: [{ name: "pg", port: 5432, protocol: "TCP" }],
      endpoints,
    });
  const crowd = Array.from({ length: 100 }, (_, index) => ({ addresses: [`10.245.0.${index}`] }));
  return {
    full: true,
    services: [
      service("web", {
        clusterIP: "10.96.0.7",
        clusterIPs: ["10.96.0.7", "fd00:10:96::7"],
        ports: [
          { name: "http", port: 80 },
          { name: "dns", port: 53, protocol: "UDP" },
        ],
      }),
      service("db", { clusterIP: "None", ports: [{ name: "pg", port: 5432 }] }),
      service("idle", { clusterIP: "None" }),
      service("crowd", { clusterIP: "None" }),
      service("far", { type: "ExternalName", externalName: "www.example.test" }),
      service("near", { type: "ExternalName", externalName: `alias.default.${svc}` }),
      service("alias", { type: "ExternalName", externalName: `web.default.${svc}` }),
      service("number", { type: "ExternalName", externalName: "192.0.2.1" }),
    ],
    slices: [
      slice("db-1", "db", [
        { addresses: ["10.244.0.5"], hostname: "db-0" },
        { addresses: ["10.244.0.6"] },
        { addresses: ["10.244.0.7"], conditions: { ready: false } },
      ]),
      slice("db-2", "db", [{ addresses: ["fd00:244::5"], hostname: "db-0" }], "IPv6"),
      slice("web-1", "web", [{ addresses: ["10.244.0.9"] }]),
      slice("crowd-1", "crowd", crowd),
    ],
    removedServices: [],
    removedSlices: [],
    namespaces: ["default", "bare"],
  };
}

type Case = readonly [string, string, string, readonly string[]];

/** What is asked, name, type, and the data of the answers in any order. */
const cases: readonly Case[] = [
  ["A of a Service", `web.default.${svc}`, "A", ["10.96.0.7"]],
  ["AAAA of a Service", `web.default.${svc}`, "AAAA", ["fd00:10:96::7"]],
  ["A of a headless Service", `db.default.${svc}`, "A", ["10.244.0.5", "10.244.0.6"]],
  ["AAAA of a headless Service", `db.default.${svc}`, "AAAA", ["fd00:244::5"]],
  ["A of a headless Service with nobody ready", `idle.default.${svc}`, "A", []],
  ["A of a pod's hostname", `db-0.db.default.${svc}`, "A", ["10.244.0.5"]],
  ["AAAA of a pod's hostname", `db-0.db.default.${svc}`, "AAAA", ["fd00:244::5"]],
  ["A of an endpoint without one", `10-244-0-6.db.default.${svc}`, "A", ["10.244.0.6"]],
  ["A of a pod that is not ready", `10-244-0-7.db.default.${svc}`, "A", []],
  [
    "SRV of a Service's port",
    `_http._tcp.web.default.${svc}`,
    "SRV",
    [`0 100 80 web.default.${svc}.`],
  ],
  ["SRV of a UDP port", `_dns._udp.web.default.${svc}`, "SRV", [`0 100 53 web.default.${svc}.`]],
  [
    "SRV of a headless Service",
    `_pg._tcp.db.default.${svc}`,
    "SRV",
    [`0 50 5432 10-244-0-6.db.default.${svc}.`, `0 50 5432 db-0.db.default.${svc}.`],
  ],
  ["PTR of a Service, IPv4", "7.0.96.10.in-addr.arpa", "PTR", [`web.default.${svc}.`]],
  [
    "PTR of a Service, IPv6",
    "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa",
    "PTR",
    [`web.default.${svc}.`],
  ],
  ["PTR of a pod with a hostname", "5.0.244.10.in-addr.arpa", "PTR", [`db-0.db.default.${svc}.`]],
  ["PTR of a pod without one", "6.0.244.10.in-addr.arpa", "PTR", [`10-244-0-6.db.default.${svc}.`]],
  [
    "PTR of a pod, IPv6",
    "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.4.4.2.0.0.0.d.f.ip6.arpa",
    "PTR",
    [`db-0.db.default.${svc}.`],
  ],
  [
    "PTR of a pod behind a Service",
    "9.0.244.10.in-addr.arpa",
    "PTR",
    [`10-244-0-9.web.default.${svc}.`],
  ],
  ["PTR of nobody in the cluster", "77.0.96.10.in-addr.arpa", "PTR", []],
  ["CNAME of an ExternalName", `far.default.${svc}`, "CNAME", ["www.example.test."]],
  [
    "A of an ExternalName outside",
    `far.default.${svc}`,
    "A",
    ["192.0.2.80", "host.example.test.", "www.example.test."],
  ],
  [
    "A of an ExternalName to an ExternalName in the cluster",
    `near.default.${svc}`,
    "A",
    ["10.96.0.7", `alias.default.${svc}.`, `web.default.${svc}.`],
  ],
  ["A of an ExternalName that is an address", `number.default.${svc}`, "A", []],
  ["A of a pod's address", "10-1-2-3.bare.pod.cluster.local", "A", ["10.1.2.3"]],
  ["AAAA of a pod's address", "fd00--1-5.bare.pod.cluster.local", "AAAA", ["fd00::1:5"]],
  ["TXT of the specification's version", "dns-version.cluster.local", "TXT", ['"1.1.0"']],
  ["NS of the zone", "cluster.local", "NS", ["ns.dns.cluster.local."]],
  ["A of the zone's name server", "ns.dns.cluster.local", "A", [four]],
  ["AAAA of the zone's name server", "ns.dns.cluster.local", "AAAA", [six]],
  ["MX of a Service: none", `web.default.${svc}`, "MX", []],
  ["A wildcard: none", `*.default.${svc}`, "A", []],
  ["A outside", "www.example.test", "A", ["192.0.2.80", "host.example.test."]],
  ["MX outside", "example.test", "MX", ["10 mail.example.test."]],
  ["TXT outside", "example.test", "TXT", ['"v=spf1 -all"']],
  ["A of localhost", "localhost", "A", ["127.0.0.1"]],
];

type Ask = (at: string, name: string, type: string, tcp: boolean) => Promise<readonly string[]>;

function lines(text: string): readonly string[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith(";"));
}

/** Resolver tools that this project has no part in, and their Debian packages. */
const tools: readonly (readonly [string, string, Ask])[] = [
  [
    "dig",
    "bind9-dnsutils",
    async (at, name, type, tcp) =>
      lines(
        await output(
          "dig",
          `@${at}`,
          name,
          type,
          "+short",
          "+tries=1",
          "+time=3",
          tcp ? "+tcp" : "+notcp",
        ),
      ),
  ],
  [
    "kdig",
    "knot-dnsutils",
    async (at, name, type, tcp) =>
      lines(
        await output(
          "kdig",
          `@${at}`,
          name,
          type,
          "+short",
          "+retry=0",
          "+time=3",
          tcp ? "+tcp" : "+notcp",
        ),
      ),
  ],
  [
    "drill",
    "ldnsutils",
    async (at, name, type, tcp) => {
      const text = await output("drill", ...(tcp ? ["-t"] : []), `@${at}`, name, type);
      const section = text.split(";; ANSWER SECTION:")[1]?.split(";; AUTHORITY SECTION:")[0] ?? "";
      return lines(section).map((line) => line.split("\t").slice(4).join(" "));
    },
  ],
];

if (insideOwnNamespace(import.meta.filename)) {
  let directory = "";
  let server: NameServer;
  let upstream: FakeNameServer;
  let running: Promise<void>;
  const stop = new AbortController();

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "remora-dns-"));
    await sh("ip", "link", "set", "lo", "up");
    await sh("ip", "addr", "add", `${four}/32`, "dev", "lo");
    await sh("ip", "-6", "addr", "add", `${six}/128`, "dev", "lo", "nodad");
    upstream = await FakeNameServer.start(
      ({ name, type }) => {
        if (name === "big.example.test") {
          const answers = Array.from({ length: 300 }, (_, index) => ({
            name,
            type: "A" as const,
            ttl: 60,
            data: `192.0.2.${index % 256}`,
          }));
          return type === "A" ? { answers } : {};
        }
        if (name === "www.example.test" && type === "A") {
          return {
            answers: [
              { name, type: "CNAME", ttl: 60, data: "host.example.test" },
              { name: "host.example.test", type: "A", ttl: 60, data: "192.0.2.80" },
            ],
          };
        }
        if (name === "example.test" && type === "MX") {
          const exchange = { preference: 10, exchange: "mail.example.test" };
          return { answers: [{ name, type: "MX", ttl: 60, data: exchange }] };
        }
        if (name === "example.test" && type === "TXT") {
          return { answers: [{ name, type: "TXT", ttl: 60, data: "v=spf1 -all" }] };
        }
        return name.endsWith("example.test") ? {} : { rcode: 3 };
      },
      upstreamIP,
      53,
    );
    const resolvConf = join(directory, "host-resolv.conf");
    await writeFile(resolvConf, `search host.example\nnameserver ${upstreamIP}\n`);
    const listening = Promise.withResolvers<void>();
    server = createNameServer({
      settings: {
        domain: "cluster.local",
        addresses: [four, six],
        port: 53,
        ownNetworks: ["10.96.0.0/16", "10.244.0.0/16"],
        resolvConf,
      },
      clock: systemClock,
      logger: silentLogger,
      random: Math.random,
      onListening: listening.resolve,
    });
    server.apply(records());
    running = server.run(stop.signal);
    await listening.promise;
  });

  after(async () => {
    stop.abort();
    await running;
    await upstream[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });

  for (const [tool, debianPackage, ask] of tools) {
    describe(`${tool} reads`, { skip: lacks(tool, debianPackage) }, () => {
      for (const [what, name, type, expected] of cases) {
        it(`${tool}: ${what}`, async () => {
          for (const at of [four, six]) {
            for (const tcp of [false, true]) {
              const found = await ask(at, name, type, tcp);
              assert.deepEqual(
                found.toSorted(),
                expected.toSorted(),
                `${at} by ${tcp ? "TCP" : "UDP"}`,
              );
            }
          }
        });
      }
    });
  }

  describe("dig", { skip: lacks("dig", "bind9-dnsutils") }, () => {
    const dig = (...args: string[]): Promise<string> =>
      output("dig", `@${four}`, "+tries=1", "+time=3", ...args);

    it("is told that a name does not exist, and for how long", async () => {
      const text = await dig(`nope.default.${svc}`);
      assert.match(text, /status: NXDOMAIN/);
      assert.match(text, /flags: qr aa rd ra;/);
      assert.match(text, /^cluster\.local\.\s+5\s+IN\s+SOA\s+ns\.dns\.cluster\.local\. .* 5$/m);
    });

    it("is told that a name has nothing of a type, and for how long", async () => {
      for (const type of ["MX", "HTTPS", "CAA", "TYPE65280"]) {
        const text = await dig(`web.default.${svc}`, type);
        assert.match(text, /status: NOERROR/, type);
        assert.match(text, /ANSWER: 0, AUTHORITY: 1/, type);
        assert.match(text, /IN\s+SOA/, type);
      }
    });

    it("gets the SOA of the zone", async () => {
      const text = await dig("cluster.local", "SOA", "+short");
      assert.match(text, /^ns\.dns\.cluster\.local\. hostmaster\.cluster\.local\. \d+ 7200 1800 /);
    });

    it("gets all that a name has by ANY", async () => {
      const text = await dig(`web.default.${svc}`, "ANY", "+short");
      assert.match(text, /^10\.96\.0\.7$/m);
      assert.match(text, /^fd00:10:96::7$/m);
    });

    it("gets the addresses of SRV targets along", async () => {
      const text = await dig(`_pg._tcp.db.default.${svc}`, "SRV");
      assert.match(text, new RegExp(`^db-0\\.db\\.default\\.${svc}\\.\\s+5\\s+IN\\s+A\\s+10`, "m"));
      assert.match(text, /IN\s+AAAA\s+fd00:244::5/);
    });

    it("+bufsize: gets as much as it said it can take, and 1232 bytes at most", async () => {
      for (const [size, most] of [
        [512, 512],
        [800, 800],
        [4096, 1232],
      ] as const) {
        const text = await dig(`crowd.default.${svc}`, `+bufsize=${size}`, "+ignore");
        assert.match(text, /flags: qr aa tc rd ra;/);
        const received = Number(/MSG SIZE +rcvd: (\d+)/.exec(text)?.[1]);
        assert.ok(received <= most && received > most - 40, `${size}: ${received}`);
        assert.match(text, /EDNS: version: 0, flags:; udp: 1232/);
      }
    });

    it("+noedns: gets 512 bytes without an OPT record", async () => {
      const text = await dig(`crowd.default.${svc}`, "+noedns", "+ignore");
      assert.match(text, /flags: qr aa tc rd ra;/);
      assert.doesNotMatch(text, /EDNS:/);
      assert.ok(Number(/MSG SIZE +rcvd: (\d+)/.exec(text)?.[1]) <= 512);
    });

    it("comes back by TCP for all of it", async () => {
      const text = await dig(`crowd.default.${svc}`);
      assert.match(text, /Truncated, retrying in TCP mode/);
      assert.match(text, /ANSWER: 100,/);
      const outside = await dig("big.example.test");
      assert.match(outside, /ANSWER: 300,/);
    });

    it("+dnssec: gets its DO bit back, and answers all the same", async () => {
      const text = await dig(`web.default.${svc}`, "+dnssec");
      assert.match(text, /EDNS: version: 0, flags: do; udp: 1232/);
      assert.match(text, /IN\s+A\s+10\.96\.0\.7/);
    });

    it("may send options of EDNS that we do not know", async () => {
      const text = await dig(`web.default.${svc}`, "+cookie", "+nsid", "+ednsopt=65001:abcd");
      assert.match(text, /IN\s+A\s+10\.96\.0\.7/);
      assert.match(text, /status: NOERROR/);
    });

    it("is refused an EDNS version that there is not", async () => {
      const text = await dig(`web.default.${svc}`, "+edns=1", "+noednsneg");
      assert.match(text, /status: BADVERS/);
    });

    it("is refused transfers of the zone", async () => {
      assert.match(await dig("cluster.local", "AXFR"), /Transfer failed/);
      // Of these it tells only how long the answer was: a header and the question.
      const text = await dig("cluster.local", "IXFR=1", "+notcp");
      assert.match(text, /MSG SIZE\s+rcvd: 31$/m);
      assert.doesNotMatch(text, /SOA/);
    });

    it("is refused other classes", async () => {
      assert.match(await dig("version.bind", "TXT", "CH"), /status: REFUSED/);
      assert.match(await dig(`web.default.${svc}`, "A", "HS"), /status: REFUSED/);
    });

    it("is told that there are no other operations", async () => {
      for (const opcode of ["notify", "update", "iquery", "status"]) {
        const text = await dig(`web.default.${svc}`, `+opcode=${opcode}`);
        assert.match(text, /status: NOTIMP/, opcode);
      }
    });

    it("is told that a message without a question is none", async () => {
      assert.match(await dig("+header-only", "x"), /status: FORMERR/);
    });

    it("gets names as it spells them", async () => {
      const name = `WeB.DeFault.sVc.ClusteR.LOCAL`;
      assert.match(await dig(name), new RegExp(`^${name.replaceAll(".", "\\.")}\\.\\s+5\\s`, "m"));
      assert.match(await dig("wWw.ExAmPle.TEST"), /^wWw\.ExAmPle\.TEST\.\s+\d+\s+IN\s+CNAME/m);
    });

    it("gets several answers of one connection", async () => {
      const connected = ["+tcp", "+keepopen", "+short"];
      const [one, two] = [`web.default.${svc}`, `db-0.db.default.${svc}`];
      const text = await dig(...connected, one, "A", `@${four}`, ...connected, two, "A");
      assert.deepEqual(lines(text), ["10.96.0.7", "10.244.0.5"]);
    });

    it("sees no difference without recursion or with checking disabled", async () => {
      for (const flag of ["+norecurse", "+cdflag", "+adflag"]) {
        assert.match(await dig(`web.default.${svc}`, flag, "+short"), /^10\.96\.0\.7$/m, flag);
      }
    });
  });

  describe("programs by their C library", () => {
    const nodeArguments = { skip: lacks("getent", "libc-bin") };

    before(async () => {
      // The mount namespace is this file's own.
      const resolvConf = join(directory, "pod-resolv.conf");
      const search = `default.${svc} ${svc} cluster.local`;
      await writeFile(resolvConf, `search ${search}\nnameserver ${four}\noptions ndots:5\n`);
      const switches = join(directory, "nsswitch.conf");
      await writeFile(switches, "hosts: files dns\n");
      await sh("mount", "--bind", resolvConf, "/etc/resolv.conf");
      await sh("mount", "--bind", switches, "/etc/nsswitch.conf");
    });

    it("glibc: short names, by the search path", nodeArguments, async () => {
      for (const name of ["web", "web.default", "web.default.svc", `web.default.${svc}`]) {
        assert.match(await output("getent", "ahostsv4", name), /^10\.96\.0\.7\s+STREAM/m, name);
      }
      assert.match(await output("getent", "ahostsv6", "web"), /^fd00:10:96::7\s+STREAM/m);
      assert.match(await output("getent", "hosts", "db-0.db"), /^fd00:244::5\s+db-0\.db\./m);
    });

    it("glibc: names outside, through all of the search path", nodeArguments, async () => {
      assert.match(await output("getent", "ahostsv4", "www.example.test"), /^192\.0\.2\.80/m);
      assert.match(await output("getent", "ahostsv4", "far"), /^192\.0\.2\.80/m);
      assert.equal((await output("getent", "ahostsv4", "nope")).trim(), "");
    });

    it("glibc: names of addresses", nodeArguments, async () => {
      assert.match(await output("getent", "hosts", "10.96.0.7"), /web\.default\.svc/);
      assert.match(await output("getent", "hosts", "fd00:244::5"), /db-0\.db\.default\.svc/);
    });

    it("glibc: many addresses, by TCP", nodeArguments, async () => {
      const found = await output("getent", "ahostsv4", "crowd");
      assert.equal(found.match(/STREAM/g)?.length, 100);
    });

    it("busybox nslookup", { skip: lacks("busybox", "busybox-static") }, async () => {
      const nslookup = (...args: string[]): Promise<string> =>
        output("busybox", "nslookup", ...args, four);
      const both = await nslookup(`web.default.${svc}`);
      assert.match(both, /Address: 10\.96\.0\.7/);
      assert.match(both, /Address: fd00:10:96::7/);
      assert.match(await nslookup("10.96.0.7"), /name = web\.default\.svc\.cluster\.local/);
      const srv = await nslookup("-type=srv", `_http._tcp.web.default.${svc}`);
      assert.match(srv, /service = 0 100 80 web\.default/);
      assert.match(await nslookup("-type=txt", "dns-version.cluster.local"), /1\.1\.0/);
      assert.match(await nslookup(`nope.default.${svc}`), /NXDOMAIN/);
    });

    it("musl", { skip: lacks("musl-gcc", "musl-tools") }, async () => {
      const source = join(directory, "resolve.c");
      const program = join(directory, "resolve");
      await writeFile(
        source,
        `#include <netdb.h>
#include <stdio.h>
#include <arpa/inet.h>
int main(int argc, char **argv) {
  struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *all, *each;
  int code = getaddrinfo(argv[1], 0, &hints, &all);
  if (code) { puts(gai_strerror(code)); return 1; }
  for (each = all; each; each = each->ai_next) {
    char text[64];
    getnameinfo(each->ai_addr, each->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
    puts(text);
  }
}
`,
      );
      await sh("musl-gcc", "-static", "-o", program, source);
      const resolve = async (name: string): Promise<readonly string[]> =>
        lines(await output(program, name)).toSorted();
      assert.deepEqual(await resolve("web"), ["10.96.0.7", "fd00:10:96::7"]);
      assert.deepEqual(await resolve(`db-0.db.default.${svc}`), ["10.244.0.5", "fd00:244::5"]);
      assert.deepEqual(await resolve("far"), ["192.0.2.80"]);
      assert.deepEqual(await resolve("www.example.test"), ["192.0.2.80"]);
      // It reads at most 48, and versions before 1.2.4 know no TCP: some at least.
      assert.ok((await resolve("crowd")).length >= 25);
      assert.deepEqual((await resolve("nope")).length, 1, "an error");
    });
  });

  describe("a name server at a link-local address", () => {
    it("is asked through its interface", async () => {
      await sh("ip", "link", "add", "far0", "type", "veth", "peer", "name", "far1");
      for (const end of ["far0", "far1"]) await sh("ip", "link", "set", end, "up");
      await sh("ip", "-6", "addr", "add", "fe80::53/64", "dev", "far0", "nodad");
      const socket = createSocket("udp6");
      socket.on("message", (message, from) => {
        const { id, questions = [] } = decode(message);
        const name = questions[0]?.name ?? "";
        const answers = [{ name, type: "A" as const, ttl: 60, data: "192.0.2.6" }];
        const reply = encode({ type: "response", id: id ?? 0, flags: 0x180, questions, answers });
        socket.send(reply, from.port, from.address);
      });
      socket.bind(53, "fe80::53%far0");
      await once(socket, "listening");
      const resolvConf = join(directory, "host-resolv.conf");
      await writeFile(resolvConf, "nameserver fe80::53%far0\n");
      await delay(1100);
      try {
        const asked = await output("dig", `@${four}`, "+short", "+tries=1", "link.test");
        assert.deepEqual(lines(asked), ["192.0.2.6"]);
      } finally {
        socket.close();
        await once(socket, "close");
      }
    });
  });
}
