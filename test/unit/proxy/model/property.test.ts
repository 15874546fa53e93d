import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { test } from "node:test";

import * as fc from "fast-check";

import {
  addressesOf,
  execute,
  here,
  hostOf,
  ModelRules,
  rulesFor,
  simulatedKernel,
} from "./build.ts";
import type { Packet } from "../../../../src/proxy/trace/flow.ts";
import { walk } from "../../../../src/proxy/trace/walk.ts";
import { assertSameEnds, endText, packetOf, simulate } from "./compare.ts";
import { applyChange, changesArbitrary, packetArbitrary, settingsArbitrary } from "./generate.ts";
import { modes } from "./modes.ts";
import { type ModelPacket, type ModelSettings, Oracle } from "./oracle.ts";

/** Give it to run the same again: `PROPERTY_SEED=123`. `PROPERTY_RUNS` for more than a few. */
const seed = Number(process.env["PROPERTY_SEED"] ?? randomInt(2 ** 31));
const numRuns = Number(process.env["PROPERTY_RUNS"] ?? 20);
const packetsPerState = 20;

/** Whoever was sent somewhere goes there again; others are spread as before. */
function assertAffinity(text: string, client: ModelPacket, settings: ModelSettings): void {
  const host = hostOf(here, settings);
  const packet = packetOf(client, settings);
  const what = JSON.stringify(client);
  for (const way of walk(execute(text, settings).rules, packet, host)) {
    assert.equal(way.remembered.length > 0, way.end.kind === "backend", what);
    const later = execute(text, settings);
    for (const seen of way.remembered) later.remember(seen);
    const again = simulate(later.rules, packet, host);
    assertSameEnds(again, new Map([[endText(way.end), 1]]), what);
    const stranger = addressesOf[settings.family].otherPod(250);
    const before = simulate(execute(text, settings).rules, { ...packet, source: stranger }, host);
    const other = simulate(later.rules, { ...packet, source: stranger }, host);
    assertSameEnds(other, before, `another client: ${what}`);
    // One of the many is enough.
    if (way.remembered.length > 0) return;
  }
}

for (const mode of modes) {
  for (const family of ["IPv4", "IPv6"] as const) {
    test(`after any changes the rules are those from scratch, and packets end where the description says [${mode} ${family}]`, async (t) => {
      t.diagnostic(`PROPERTY_SEED=${seed}`);
      const states = fc.record({
        settings: settingsArbitrary(mode, family),
        changes: changesArbitrary(20),
        keepsSource: fc.boolean(),
        // After which of the changes the rules are written.
        syncs: fc.array(fc.boolean(), { minLength: 1, maxLength: 5 }),
        packets: fc.array(packetArbitrary(family), {
          minLength: packetsPerState,
          maxLength: packetsPerState,
        }),
      });
      await fc.assert(
        fc.asyncProperty(states, async ({ settings, changes, packets, syncs, keepsSource }) => {
          const node = { ...here, keepsSource };
          const kernel = simulatedKernel(settings);
          const rules = new ModelRules(settings, node, kernel.backend);
          for (const [index, change] of changes.entries()) {
            applyChange(rules, change);
            if (syncs[index % syncs.length] === true) await rules.sync();
          }
          await rules.sync();
          // Once more: what waited for its deletion goes.
          await rules.sync();
          const scratch = simulatedKernel(settings);
          const again = rulesFor(rules.cluster, settings, node, scratch.backend);
          assert.deepEqual(rules.snapshot(), again.snapshot());
          await again.sync();
          assert.deepEqual(kernel.comparable(), scratch.comparable());
          const text = again.render();
          const rendered = execute(text, settings).rules;
          const oracle = new Oracle(rules.cluster, node, settings);
          const host = hostOf(here, settings);
          const incremental = kernel.rules();
          for (const packet of packets) {
            const expected = oracle.ends(packet);
            const sent = packetOf(packet, settings);
            const what = JSON.stringify(packet);
            assertSameEnds(simulate(incremental, sent, host), expected, `incremental: ${what}`);
            assertSameEnds(simulate(rendered, sent, host), expected, `rendered: ${what}`);
            const old: Packet = { ...sent, state: "established" };
            assertSameEnds(
              simulate(rendered, old, host),
              oracle.established(packet),
              `old: ${what}`,
            );
          }
          const client = packets.find((packet) => oracle.remembers(packet));
          if (client !== undefined) assertAffinity(text, client, settings);
        }),
        // Making a large counterexample small may take for ever.
        { numRuns, seed, plugins: [fc.interruptAfterTimeLimit(60_000)] },
      );
    });
  }
}
