import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { test } from "node:test";

import * as fc from "fast-check";

import { execute, here, hostOf, ModelRules, rulesFor } from "./build.ts";
import { assertSameEnds, packetOf, simulate } from "./compare.ts";
import { changesArbitrary, packetArbitrary, settingsArbitrary } from "./generate.ts";
import { modes } from "./modes.ts";
import { Oracle } from "./oracle.ts";

/** Give it to run the same again: `PROPERTY_SEED=123`. `PROPERTY_RUNS` for more than a few. */
const seed = Number(process.env["PROPERTY_SEED"] ?? randomInt(2 ** 31));
const numRuns = Number(process.env["PROPERTY_RUNS"] ?? 40);
const packetsPerState = 20;

for (const mode of modes) {
  for (const family of ["IPv4", "IPv6"] as const) {
    test(`after any changes the rules are those from scratch, and packets end where the description says [${mode} ${family}]`, async (t) => {
      t.diagnostic(`PROPERTY_SEED=${seed}`);
      const states = fc.record({
        settings: settingsArbitrary(mode, family),
        changes: changesArbitrary(20),
        packets: fc.array(packetArbitrary(family), {
          minLength: packetsPerState,
          maxLength: packetsPerState,
        }),
      });
      await fc.assert(
        fc.asyncProperty(states, async ({ settings, changes, packets }) => {
          const rules = new ModelRules(settings, here);
          for (const change of changes) {
            if (change.kind === "service") rules.setService(change.name, change.service);
            else rules.setSlice(change.name, change.slice);
          }
          const scratch = rulesFor(rules.cluster, settings, here);
          assert.deepEqual(rules.snapshot(), scratch.snapshot());
          const executable = execute(scratch.render(), settings);
          const oracle = new Oracle(rules.cluster, here, settings);
          const host = hostOf(here, settings);
          for (const packet of packets) {
            assertSameEnds(
              simulate(executable, packetOf(packet, settings), host),
              oracle.ends(packet),
              JSON.stringify(packet),
            );
          }
        }),
        { numRuns, seed },
      );
    });
  }
}
