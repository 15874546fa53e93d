import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { SetupError } from "../../../src/lib/errors.ts";
import { type BackendProbes, chooseBackend } from "../../../src/proxy/choose-backend.ts";

const { signal } = new AbortController();

function machine(has: { readonly nft: boolean; readonly iptables: boolean }): BackendProbes {
  return {
    nft: () =>
      has.nft
        ? Promise.resolve("1.0.6")
        : Promise.reject(new SetupError("nft is not installed: run `apt-get install nftables`")),
    iptables: () =>
      Promise.resolve(has.iptables ? { version: "1.8.9", variant: "legacy" } : undefined),
  };
}

describe("who writes the rules", () => {
  it("is nftables where the machine can do it", async () => {
    const chosen = await chooseBackend("", machine({ nft: true, iptables: true }), signal);
    assert.deepEqual(chosen, {
      mode: "nftables",
      program: "nft 1.0.6",
      reason: "this machine can do nftables",
    });
  });
  it("else iptables, and the reason says what nftables lacks", async () => {
    const chosen = await chooseBackend("", machine({ nft: false, iptables: true }), signal);
    assert.equal(chosen.mode, "iptables");
    assert.equal(chosen.program, "iptables 1.8.9 (legacy)");
    assert.match(chosen.reason, /nft is not installed/);
  });
  it("is nobody without either, which is told with both reasons", async () => {
    await assert.rejects(
      chooseBackend("", machine({ nft: false, iptables: false }), signal),
      /SetupError: .*nft is not installed.*iptables is not installed/,
    );
  });
  it("is who the configuration names", async () => {
    const both = machine({ nft: true, iptables: true });
    for (const mode of ["nftables", "iptables"] as const) {
      const chosen = await chooseBackend(mode, both, signal);
      assert.equal(chosen.mode, mode);
      assert.equal(chosen.reason, `KubeProxyConfiguration mode ${mode}`);
    }
  });
  it("is not another one than the configuration names", async () => {
    await assert.rejects(
      chooseBackend("nftables", machine({ nft: false, iptables: true }), signal),
      /mode nftables cannot be done: nft is not installed.*or set mode: iptables/,
    );
    await assert.rejects(
      chooseBackend("iptables", machine({ nft: true, iptables: false }), signal),
      /mode iptables cannot be done: iptables is not installed/,
    );
  });
  it("is not decided by an accident", async () => {
    const accident = {
      ...machine({ nft: true, iptables: true }),
      nft: () => Promise.reject(new Error("EMFILE")),
    };
    await assert.rejects(chooseBackend("", accident, signal), /EMFILE/);
  });
});
