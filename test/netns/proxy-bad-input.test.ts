import assert from "node:assert/strict";
import { describe, it } from "node:test";

import * as fc from "fast-check";

import { execResult } from "../../src/lib/exec.ts";
import { renderedRules } from "../fakes/hostile-rules.ts";
import { hostileService, hostileSlice, marker } from "../fakes/hostile-services.ts";
import { insideOwnNamespace, sh } from "./namespace.ts";

const { signal } = new AbortController();
const objects = fc.record({
  services: fc.array(hostileService, { minLength: 1, maxLength: 8 }),
  slices: fc.array(hostileSlice, { minLength: 4, maxLength: 16 }),
});
const family = fc.constantFrom("IPv4" as const, "IPv6" as const);

async function accepted(argv: readonly [string, ...string[]], text: string): Promise<void> {
  const { exitCode, stderr } = await execResult(argv, { stdin: text, signal });
  assert.equal(exitCode, 0, `${stderr}\n${text}`);
}

if (insideOwnNamespace(import.meta.filename)) {
  describe("objects that no server would let in", { concurrency: false }, () => {
    it("lead to rules that nft and the kernel take, in our table alone", async () => {
      await fc.assert(
        fc.asyncProperty(objects, family, async (found, of) => {
          await sh("nft", "flush ruleset");
          await accepted(["nft", "-f", "-"], renderedRules(found, of, "nftables"));
          const tables = (await sh("nft", "list", "tables")).trim();
          assert.equal(tables, `table ${of === "IPv4" ? "ip" : "ip6"} remora-proxy`);
        }),
        { numRuns: 60 },
      );
    });

    it("lead to rules that iptables-restore and the kernel take, in chains of ours alone", async () => {
      await fc.assert(
        fc.asyncProperty(objects, family, async (found, of) => {
          const program = of === "IPv4" ? "iptables" : "ip6tables";
          await sh("nft", "flush ruleset");
          await accepted([`${program}-restore`, "--noflush"], renderedRules(found, of, "iptables"));
          assert.ok(!(await sh(`${program}-save`)).includes(marker));
        }),
        { numRuns: 60 },
      );
    });
  });
}
