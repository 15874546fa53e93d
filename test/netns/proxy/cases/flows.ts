import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";

import { ENDPOINT_SLICES } from "../../../../src/api/resources.ts";
import { sh } from "../../namespace.ts";
import { sliceObject } from "../objects.ts";
import type { Subject } from "../packet-case.ts";
import { RawSocket, tcpSegment } from "../raw-socket.ts";
import { askSCTP, serveSCTP } from "../sctp.ts";
import type { Stage, TestService } from "../stage.ts";
import { eventually } from "../world.ts";
import { assertNames, assertRefused, assertRefusedByICMP, briefly, names } from "./expect.ts";

const second = { seconds: 1 } as const;

/** Asks again and again over one flow until `name` answers. */
function flowReaches(
  ask: (timeoutMs: number) => Promise<readonly string[]>,
  name: string,
  what: string,
): Promise<void> {
  return eventually(async () => (await ask(150))[0]?.startsWith(`${name} `) === true, what, second);
}

/** UDP flows that a change makes wrong. Their clean-up is measured in time, so that nothing else may go on. */
export function udpFlowCases({ packet }: Subject): void {
  packet(
    41,
    "a UDP flow moves to another endpoint within a second when its own is removed",
    async (stage) => {
      const service = await stage.served({ type: "NodePort", targets: ["a", "b"] });
      const { c, client } = stage.peers;
      for (const [peer, to] of [
        [c, service.at("u")],
        [client, service.atNode("u")],
      ] as const) {
        const localPort = stage.flowPort();
        const [first = ""] = await peer.ask("udp", to, { localPort });
        const stays = first.startsWith("a ") ? "b" : "a";
        service.setTargets(stays);
        await flowReaches(
          (timeoutMs) => peer.ask("udp", to, { localPort, timeoutMs }),
          stays,
          `the flow follows to ${stays}`,
        );
        assert.deepEqual(names(await peer.ask("udp", to, { localPort })), [stays]);
        service.setTargets("a", "b");
        await stage.settled();
      }
    },
  );

  packet(
    41,
    "a UDP flow stays where it is while its endpoint only serves no new ones",
    async (stage) => {
      const service = await stage.served({ targets: ["a"] });
      const { c } = stage.peers;
      const flow = { localPort: stage.flowPort() };
      assertNames(await c.ask("udp", service.at("u"), flow), "a");
      service.setTargets({ pod: "a", ready: false, terminating: true }, "b");
      await stage.settled();
      assertNames(await c.ask("udp", service.at("u"), flow), "a");
      assertNames(await c.ask("udp", service.at("u"), { count: 5 }), "b");
    },
  );

  packet(42, "UDP: no endpoint and then one again is no black hole", async (stage) => {
    const service = await stage.served({ targets: ["a"] });
    const { c } = stage.peers;
    const localPort = stage.flowPort();
    const to = service.at("u");
    assertNames(await c.ask("udp", to, { localPort }), "a");
    service.setTargets();
    await eventually(
      async () => (await c.ask("udp", to, { localPort, timeoutMs: 150 }))[0] === "ECONNREFUSED",
      "refused",
    );
    service.setTargets("b");
    await flowReaches(
      (timeoutMs) => c.ask("udp", to, { localPort, timeoutMs }),
      "b",
      "served again",
    );
  });

  packet(
    42,
    "a UDP flow that began before there was an endpoint is served when there is one",
    async (stage) => {
      const service = await stage.served();
      const { a } = stage.peers;
      const localPort = stage.flowPort();
      const to = service.at("u");
      await assertRefusedByICMP(() => a.ask("udp", to, { localPort, timeoutMs: 200 }));
      const stop = await a.stream(to, stage.flowPort());
      stage.atEnd(stop);
      service.setTargets("b");
      await flowReaches((timeoutMs) => a.ask("udp", to, { localPort, timeoutMs }), "b", "served");
    },
  );

  packet(
    43,
    "one-way UDP: after scaling to zero nothing reaches the old endpoint",
    async (stage) => {
      const service = await stage.served({ type: "NodePort", ports: ["s"], targets: ["b"] });
      const { c, client, b } = stage.peers;
      for (const [peer, to] of [
        [c, service.at("s")],
        [client, service.atNode("s")],
      ] as const) {
        const stop = await peer.stream(to, stage.flowPort());
        const arrives = async (): Promise<boolean> => {
          const before = await b.received(9090);
          await delay(150);
          return (await b.received(9090)) > before;
        };
        await eventually(arrives, "datagrams arrive");
        service.setTargets();
        await eventually(async () => !(await arrives()), "and stop", { seconds: 1.5 });
        service.setTargets("b");
        await eventually(arrives, "and arrive again");
        await stop();
      }
    },
  );

  packet(44, "a UDP flow follows when the target port changes", async (stage) => {
    const service = await stage.served({ type: "NodePort", targets: ["a"] });
    const { c, client } = stage.peers;
    for (const [peer, to] of [
      [c, service.at("u")],
      [client, service.atNode("u")],
    ] as const) {
      const localPort = stage.flowPort();
      const port = async (timeoutMs: number): Promise<string | undefined> =>
        (await peer.ask("udp", to, { localPort, timeoutMs }))[0]?.split(" ")[2];
      assert.equal(await port(3000), "8080");
      service.change({ targetPort: 8081 });
      await eventually(async () => (await port(150)) === "8081", "the other port");
      service.change({ targetPort: 8080 });
      await eventually(async () => (await port(150)) === "8080", "and back");
    }
  });
}

/** Flows that exist while Services change: UDP that is left alone, SCTP, and TCP. */
export function flowCases({ at, packet }: Subject): void {
  const conntrack = (...args: readonly string[]): Promise<string> =>
    sh("conntrack", ...args, "-f", at.family.toLowerCase());

  packet(
    45,
    "a UDP flow to somebody else's port of a node port's number is left alone",
    async (stage) => {
      const service: TestService = stage.service({ type: "NodePort", targets: ["a", "b"] });
      // The client serves on 8081 whatever the Service does; the node port has that number here.
      service.change({
        spec: {
          type: "NodePort",
          ports: [{ name: "u", port: 80, protocol: "UDP", nodePort: 8081 }],
        },
      });
      await stage.settled();
      const host = at.suffix === "v4" ? at.client : `[${at.client}]`;
      const localPort = stage.flowPort();
      const { a } = stage.peers;
      assert.deepEqual(names(await a.ask("udp", `${host}:8081`, { localPort })), ["client"]);
      const entry = async (): Promise<string> => {
        const listing = await conntrack("-L", "-p", "udp", "--orig-dst", at.client, "-o", "id");
        const line = listing.split("\n").find((text) => text.includes(`sport=${localPort} `));
        return /id=\d+/.exec(line ?? "")?.[0] ?? "";
      };
      const before = await entry();
      assert.notEqual(before, "");
      for (const targets of [["b"], [], ["a"]] as const) {
        service.setTargets(...targets);
        await stage.settled();
      }
      service.remove();
      await stage.settled();
      await delay(200);
      assert.equal(await entry(), before);
    },
  );

  packet(48, "TCP, UDP and SCTP of one port number have backends of their own", async (stage) => {
    const service = stage.service({ ports: ["t", "u", "i"], withSlice: false });
    for (const [kind, pod] of [
      ["t", "a"],
      ["u", "b"],
      ["i", "c"],
    ] as const) {
      const slice = sliceObject(service.name, at, { targets: [pod], ports: [kind], part: kind });
      stage.world.api.put(ENDPOINT_SLICES, slice);
      stage.atEnd(async () => {
        stage.world.api.remove(ENDPOINT_SLICES, `default/${slice.metadata?.name ?? ""}`);
      });
    }
    await stage.settled();
    const { a, c, client } = stage.peers;
    assertNames(await c.ask("tcp", service.at(), { count: 10 }), "a");
    assertNames(await c.ask("udp", service.at("u"), { count: 10 }), "b");
    const server = await serveSCTP(c, at, 0xc0ffee);
    stage.atEnd(() => server.close());
    const to = { ip: service.clusterIP, port: 80 };
    assert.equal(await askSCTP(a, at, { ...to, fromPort: stage.flowPort() }), 0xc0ffee);
    assert.equal(await askSCTP(client, at, { ...to, fromPort: stage.flowPort() }), 0xc0ffee);
  });

  packet(
    55,
    "a segment out of its window does not end a connection through a Service",
    async (stage) => {
      const service = await stage.served({ ports: ["e"], targets: ["a"] });
      const { a, c } = stage.peers;
      const talk = await c.open(service.at("e"));
      stage.atEnd(() => talk.end());
      assert.equal(talk.greeting, "a");
      assert.equal(await talk.say("one"), "one");
      const socket = await RawSocket.open(a, at, 6);
      stage.atEnd(() => socket.close());
      for (let turn = 0; turn < 5; turn += 1) {
        const segment = {
          from: at.pods.a,
          to: at.pods.c,
          fromPort: 7070,
          toPort: talk.localPort,
          sequence: (0x70000000 + turn * 0x10000000) >>> 0,
          acknowledged: 0x12345678,
          text: "boom",
        };
        socket.send(at.pods.c, tcpSegment(segment));
      }
      await delay(200);
      assert.equal(await talk.say("two"), "two");
      assert.equal(await talk.say("three"), "three");
    },
  );

  packet(
    47,
    "200 connections a second meet no failure while endpoints change 100 times",
    async (stage) => {
      const service = await stage.served({ ports: ["t"], targets: ["a", "b"] });
      const stop = await stage.peers.c.pace(service.at(), 200);
      const sets = [["b", "c"], ["a"], ["a", "b", "remote"], ["remote", "c"], ["a", "b"]] as const;
      for (let turn = 0; turn < 100; turn += 1) {
        service.setTargets(...(sets[turn % sets.length] ?? ["a"]));
        await delay(40);
      }
      await stage.settled();
      const { counts } = await stop();
      const failed = Object.entries(counts).filter(
        ([name]) => !["a", "b", "c", "remote"].includes(name),
      );
      assert.deepEqual(failed, []);
      const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
      assert.ok(total > 300, `${total} connections`);
    },
  );

  packet(
    46,
    "an established connection survives its endpoint's end and other changes",
    async (stage) => {
      const service = await stage.served({ type: "NodePort", ports: ["e"], targets: ["a"] });
      const talks = await openAll(stage, service);
      service.setTargets("b");
      await stage.settled();
      await sayAll(talks, "another endpoint");
      service.setTargets();
      await stage.settled();
      await sayAll(talks, "none");
      assertRefused(await stage.peers.c.ask("tcp", service.at("e"), briefly));
      service.change({ targets: ["b"], spec: { sessionAffinity: "ClientIP" } });
      await stage.settled();
      await sayAll(talks, "affinity");
      service.change({ spec: { externalTrafficPolicy: "Local" } });
      await stage.settled();
      await sayAll(talks, "local");
      service.remove();
      await stage.settled();
      await sayAll(talks, "removed");
    },
  );
}

type Talk = Awaited<ReturnType<Stage["peers"]["c"]["open"]>>;

/** Conversations with pod a from a pod, the node and the client. */
export async function openAll(stage: Stage, service: TestService): Promise<readonly Talk[]> {
  const { c, node, client } = stage.peers;
  const talks = [
    await c.open(service.at("e")),
    await node.open(service.at("e")),
    await client.open(service.atNode("e")),
  ];
  stage.atEnd(() => Promise.all(talks.map((talk) => talk.end())));
  for (const { greeting } of talks) assert.equal(greeting, "a");
  return talks;
}

export async function sayAll(talks: readonly Talk[], text: string): Promise<void> {
  for (const talk of talks) assert.equal(await talk.say(text), text);
}
