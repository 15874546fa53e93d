// Random changes in a real kernel, and real packets: what the description says, what the simulator makes of the rules
// that the kernel lists, and what really comes back must be the same. Case 70 of the packet cases.
import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { after, before, describe, it } from "node:test";

import * as fc from "fast-check";

import { cleanUpProxy } from "../../src/proxy/cleanup.ts";
import { cleanUpIptables } from "../../src/proxy/iptables/cleanup.ts";
import { readListing } from "../../src/proxy/trace/nft-listing.ts";
import { NftTraceRuleset } from "../../src/proxy/trace/nft-text.ts";
import { readHost, readKernelRules } from "../../src/proxy/trace/read-kernel.ts";
import {
  addressesOf,
  here,
  makeBackend,
  ModelRules,
  rulesFor,
  settingsOf,
  simulatedKernel,
} from "../unit/proxy/model/build.ts";
import { packetOf, simulate } from "../unit/proxy/model/compare.ts";
import {
  applyChange,
  changesArbitrary,
  realPacketArbitrary,
} from "../unit/proxy/model/generate.ts";
import { modes } from "../unit/proxy/model/modes.ts";
import { comparableTable } from "../unit/proxy/model/nft-host.ts";
import {
  type Ends,
  type ModelPacket,
  type ModelSettings,
  Oracle,
} from "../unit/proxy/model/oracle.ts";
import { insideOwnNamespace, sh } from "./namespace.ts";
import { Topology } from "./proxy/topology.ts";
import type { Peer } from "./proxy/peer.ts";

const { signal } = new AbortController();
const states = Number(process.env["PROPERTY_RUNS"] ?? 10);
const packetsPerState = 20;
const silenceMs = 400;
const tableName = "remora-proxy";

/** What can be seen of an end from outside: a pod's name and whether it saw the sender, a refusal, or silence. */
function seen(end: string, names: ReadonlyMap<string, string>): string {
  const [ip = "", , source = ""] = end.split(" ");
  const name = names.get(ip);
  if (name !== undefined) return `${name} ${source}`;
  // The node itself has nobody on these ports.
  return end.startsWith("rejected") || end === "host" ? "refused" : "silence";
}

function answer(text: string, packet: ModelPacket, expected: ReadonlySet<string>): string {
  if (text === "timeout") return "silence";
  // What the kernel's own output does not let out is an error of the call, however it is meant.
  if (text === "EPERM" && packet.inInterface === "")
    return expected.has("refused") ? "refused" : "silence";
  if (text === "ECONNREFUSED") return "refused";
  const [name = "", source = ""] = text.split(" ");
  return `${name} ${source === packet.source ? "kept" : "masqueraded"}`;
}

/** Towards another node the node's own address is the same before and behind. */
function likeSeen(kinds: ReadonlySet<string>, packet: ModelPacket): ReadonlySet<string> {
  if (packet.inInterface !== "") return kinds;
  return new Set([...kinds].map((kind) => kind.replace(/ (kept|masqueraded)$/, "")));
}

function kindsOf(ends: Ends, packet: ModelPacket, names: ReadonlyMap<string, string>): Set<string> {
  const kinds = new Set([...ends.keys()].map((end) => seen(end, names)));
  return new Set(likeSeen(kinds, packet));
}

if (insideOwnNamespace(import.meta.filename)) {
  describe("random changes and real packets", { concurrency: false }, () => {
    const seed = Number(process.env["PROPERTY_SEED"] ?? randomInt(2 ** 31));
    const topology = new Topology();

    before(async () => {
      await topology.setUp();
      // Each refusal of UDP must be told.
      await sh("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0");
    });
    after(() => topology.tearDown());

    for (const mode of modes) {
      for (const family of ["IPv4", "IPv6"] as const) {
        it(`#70 after each change the description, the simulator and the kernel send packets to the same place [${mode} ${family}] (PROPERTY_SEED=${seed})`, async () => {
          const at = addressesOf[family];
          const { a, b, c, remote, node, client } = topology.peers;
          const senders = new Map<string, Peer>([
            [at.pod(2), a],
            [at.pod(3), b],
            [at.pod(4), c],
            [at.node, node],
            [at.outside, client],
          ]);
          assert.ok(remote.pid > 0);
          const names = new Map([
            [at.pod(2), "a"],
            [at.pod(3), "b"],
            [at.pod(4), "c"],
            [at.otherPod(2), "remote"],
          ]);
          const settings: ModelSettings = settingsOf(mode, family, {
            nodePortIPs: seed % 2 === 0 ? undefined : [at.node],
          });
          const rules = new ModelRules(settings, here, makeBackend(settings));
          const draws = fc.sample(
            fc.record({
              changes: changesArbitrary(5, true),
              packets: fc.array(realPacketArbitrary(family), {
                minLength: packetsPerState,
                maxLength: packetsPerState,
              }),
            }),
            { numRuns: states, seed },
          );
          try {
            for (const { changes, packets } of draws) {
              for (const change of changes) {
                applyChange(rules, change);
              }
              await rules.sync();
              const host = await readHost(family, signal);
              const kernel = await readKernelRules(family, [tableName], signal);
              assert.deepEqual(kernel.notOwn, []);
              const oracle = new Oracle(rules.cluster, here, settings);
              const state = JSON.stringify([...rules.cluster.services, ...rules.cluster.slices]);
              await Promise.all(
                packets.map(async (packet) => {
                  const expected = kindsOf(oracle.ends(packet), packet, names);
                  const simulated = simulate(kernel.rules, packetOf(packet, settings), host);
                  const what = `${JSON.stringify(packet)} in ${state}`;
                  assert.deepEqual(
                    [...kindsOf(simulated, packet, names)].toSorted(),
                    [...expected].toSorted(),
                    `simulator: ${what}`,
                  );
                  const sender = senders.get(packet.source);
                  assert.ok(sender !== undefined, packet.source);
                  const to = `${packet.destination}:${packet.port}`;
                  const protocol = packet.protocol === "udp" ? "udp" : "tcp";
                  const [text = ""] = await sender.ask(protocol, to, {
                    timeoutMs: expected.has("silence") ? silenceMs : 3000,
                  });
                  const [got = ""] = likeSeen(new Set([answer(text, packet, expected)]), packet);
                  assert.ok(
                    expected.has(got),
                    `${text}, not ${[...expected].join(" or ")}: ${what}`,
                  );
                }),
              );
            }
            if (mode === "nftables") await assertSameTable(rules, settings);
          } finally {
            await clear(mode);
          }
        });
      }
    }
  });
}

/** What the kernel lists is what somebody would write who starts from nothing. */
async function assertSameTable(rules: ModelRules, settings: ModelSettings): Promise<void> {
  const family = settings.family === "IPv4" ? "ip" : "ip6";
  const kernel = new NftTraceRuleset();
  readListing(await sh("nft", "list", "table", family, tableName), kernel);
  const listed = comparableTable(kernel.table(family, tableName));
  const scratch = simulatedKernel(settings);
  await rulesFor(rules.cluster, settings, here, scratch.backend).sync();
  const wanted = scratch.comparable();
  for (const [key, value] of wanted) assert.equal(listed.get(key), value, key);
  for (const key of listed.keys()) {
    // Chains that nobody wants any more wait for their deletion.
    if (!wanted.has(key)) assert.match(key, /^chain /);
  }
}

async function clear(mode: ModelSettings["mode"]): Promise<void> {
  if (mode === "iptables") {
    await cleanUpIptables(signal);
    return;
  }
  await cleanUpProxy(signal);
}
