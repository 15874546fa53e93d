import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { hostResolvConf } from "../../../src/agent/host-resolv-conf.ts";

const stub = "nameserver 127.0.0.53\noptions edns0\nsearch lan\n";
const behind = "/run/systemd/resolve/resolv.conf";

describe("the host's resolv.conf", () => {
  const table = [
    ["names servers", "nameserver 192.0.2.1\n", "", "/etc/resolv.conf"],
    ["names systemd-resolved, which names servers", stub, "nameserver 192.0.2.1\n", behind],
    ["names systemd-resolved, which knows none", stub, "search lan\n", "/etc/resolv.conf"],
    ["is not there", "", "", "/etc/resolv.conf"],
  ] as const;
  for (const [what, own, resolved, expected] of table) {
    it(what, async () => {
      const read = async (path: string): Promise<string> => (path === behind ? resolved : own);
      assert.equal(await hostResolvConf("/etc/resolv.conf", read), expected);
    });
  }

  it("is none where the agent was told so", async () => {
    assert.equal(await hostResolvConf("", async () => stub), "");
  });
});
