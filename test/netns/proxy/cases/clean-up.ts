import assert from "node:assert/strict";

import { ENDPOINT_SLICES, SERVICES } from "../../../../src/api/resources.ts";
import { cleanUpProxy } from "../../../../src/proxy/cleanup.ts";
import type { Subject } from "../packet-case.ts";
import { eventually } from "../world.ts";
import { assertAmong } from "./expect.ts";

const { signal } = new AbortController();

/** The end: what goes with Services, and what goes with the proxy. These run last. */
export function removedServicesCases({ world, at, packet }: Subject): void {
  packet(65, "Services that are removed leave nothing behind", async (stage) => {
    const service = await stage.served({
      type: "LoadBalancer",
      external: true,
      targets: ["a", "b", "remote"],
      spec: {
        sessionAffinity: "ClientIP",
        loadBalancerSourceRanges: [`${at.pods.c}/${at.single}`],
      },
    });
    assertAmong(await stage.peers.c.ask("tcp", service.at(), { count: 3 }), "a", "b", "remote");
    const traces = [...Object.values(at.pods), service.clusterIP, service.externalIP, service.name];
    const found = async (): Promise<readonly string[]> => {
      const rules = await world.rules(at);
      const words = new Set(rules.split(/[^\w.:-]+/));
      return traces.filter((text) => words.has(text) || words.has(`${text}:8080`));
    };
    assert.notDeepEqual(await found(), []);
    for (const { metadata } of world.api.list(SERVICES)) {
      world.api.remove(SERVICES, `default/${metadata.name}`);
    }
    for (const { metadata } of world.api.list(ENDPOINT_SLICES)) {
      world.api.remove(ENDPOINT_SLICES, `default/${metadata.name}`);
    }
    // What is not used any more goes a second later.
    await eventually(async () => (await found()).length === 0, "no trace", { seconds: 4 });
  });
}

export function cleanUpCases({ world, packet }: Subject): void {
  packet(65, "clean-up leaves the host as it was", async () => {
    await world.stop();
    await cleanUpProxy(signal);
    await cleanUpProxy(signal);
    await world.topology.removeNetwork();
    assert.equal(await world.topology.takeInventory(), world.topology.untouched);
  });
}
