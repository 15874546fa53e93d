import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { ParseError } from "../../../../src/lib/errors.ts";
import { silentLogger } from "../../../../src/lib/log.ts";
import { NftError } from "../../../../src/netfilter/errors.ts";
import type { TableListing } from "../../../../src/netfilter/read-back.ts";
import { type NftProgram, TableApplier } from "../../../../src/proxy/nftables/apply.ts";
import { DesiredTable } from "../../../../src/proxy/nftables/desired-table.ts";
import { serviceLayout } from "../../../../src/proxy/nftables/layout.ts";
import { rulesContext } from "../../../fakes/service-samples.ts";

const clock = { now: () => 0, monotonic: () => 0, sleep: async () => Promise.resolve() };
const { signal } = new AbortController();

function setUp(nft: Partial<NftProgram>): { applier: TableApplier; sent: string[] } {
  const sent: string[] = [];
  const applier = new TableApplier({
    table: { family: "ip", name: "t" },
    desired: new DesiredTable(serviceLayout(rulesContext())),
    logger: silentLogger,
    clock,
    nft: {
      list: async () => Promise.resolve(undefined),
      apply: async (text) => {
        sent.push(text);
        return Promise.resolve();
      },
      ...nft,
    },
  });
  return { applier, sent };
}

const nobodyReads = async (): Promise<TableListing> =>
  Promise.reject(new ParseError("$", "an address"));

describe("a table that cannot be read", () => {
  it("is replaced as a whole when it still cannot be read at the third time", async () => {
    const { applier, sent } = setUp({ list: nobodyReads });
    await assert.rejects(applier.sync(signal), ParseError);
    await assert.rejects(applier.sync(signal), ParseError);
    assert.deepEqual(sent, []);
    await applier.sync(signal);
    assert.match(sent.join(""), /^add table ip t\ndelete table ip t\nadd table ip t\n/);
    sent.length = 0;
    await applier.sync(signal);
    assert.deepEqual(sent, []);
  });

  it("is not replaced because the program was told to end", async () => {
    const { applier } = setUp({
      list: async () => Promise.reject(new DOMException("ended", "AbortError")),
    });
    for (const _ of [1, 2, 3, 4])
      await assert.rejects(applier.sync(signal), { name: "AbortError" });
  });
});

describe("a failed transaction", () => {
  it("is followed by a read-back", async () => {
    let lists = 0;
    let fails = true;
    const { applier } = setUp({
      list: async () => {
        lists += 1;
        return Promise.resolve(undefined);
      },
      apply: async () => (fails ? Promise.reject(new NftError("exists", "")) : Promise.resolve()),
    });
    await assert.rejects(applier.sync(signal), NftError);
    fails = false;
    await applier.sync(signal);
    await applier.sync(signal);
    assert.equal(lists, 2);
  });
});
