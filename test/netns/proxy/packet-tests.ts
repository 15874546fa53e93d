import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, describe, it } from "node:test";

import type { ProxyMode } from "../../../src/proxy/backend.ts";
import { affinityCases, affinityRestartCases } from "./cases/affinity.ts";
import { cleanUpCases, removedServicesCases } from "./cases/clean-up.ts";
import { clusterIPCases } from "./cases/cluster-ip.ts";
import { externalCases, externalSettingsCases } from "./cases/external.ts";
import { flowCases, udpFlowCases } from "./cases/flows.ts";
import { hostCases } from "./cases/host.ts";
import { nodePortCases, nodePortSettingsCases } from "./cases/node-port.ts";
import { nodeZoneCases, policyCases } from "./cases/policies.ts";
import { rejectCases } from "./cases/rejects.ts";
import { repairCases } from "./cases/repair.ts";
import { Registry, type Subject, subject } from "./packet-case.ts";
import { bothFamilies } from "./topology.ts";
import { World } from "./world.ts";

/** Cases that must hold in IPv6 too: number 57. */
const alsoIPv6 = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 19, 20, 21, 22, 23, 24, 41];

/** Random changes against a model, in all three: number 70. */
const propertyTests = new URL("../proxy-property.test.ts", import.meta.url).pathname;

const undisturbed = [
  clusterIPCases,
  nodePortCases,
  externalCases,
  rejectCases,
  policyCases,
  affinityCases,
  flowCases,
];

/** These restart the proxy, change the machine or take rules away: one at a time. */
const alone = [
  udpFlowCases,
  nodeZoneCases,
  nodePortSettingsCases,
  externalSettingsCases,
  affinityRestartCases,
  hostCases,
  repairCases,
  removedServicesCases,
];

/** Registers the packet cases of one mode, in both families. */
export function packetTests(mode: ProxyMode): void {
  const world = new World(mode);
  const registry = new Registry();
  const subjects: readonly Subject[] = bothFamilies.map((at) => subject(world, at, registry));

  describe(`Services with real packets, ${mode}`, { concurrency: false }, () => {
    before(() => world.setUp());
    after(() => world.tearDown());

    describe("side by side", { concurrency: 6 }, () => {
      for (const cases of undisturbed) for (const one of subjects) cases(one);
    });
    describe("one after the other", { concurrency: false }, () => {
      for (const cases of alone) for (const one of subjects) cases(one);
      const [first] = subjects;
      if (first !== undefined) cleanUpCases(first);
    });

    it(`#57 cases ${alsoIPv6.join(", ")} have their IPv6 copies [${mode}]`, () => {
      registry.note(57, mode);
      const missing = alsoIPv6.filter((number) => !registry.has(number, `${mode} IPv6`));
      assert.deepEqual(missing, []);
    });

    it(`every case of 1 to 70 has a test [${mode}]`, () => {
      if (existsSync(propertyTests)) registry.note(70, mode);
      const all = Array.from({ length: 70 }, (_, index) => index + 1);
      assert.deepEqual(registry.missing(all), []);
    });
  });
}
