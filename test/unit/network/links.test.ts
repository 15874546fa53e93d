import assert from "node:assert/strict";
import { test } from "node:test";

import { cutOff, type Link, vethName } from "../../../src/network/links.ts";

function link(name: string, more: Partial<Link> = {}): Link {
  return {
    name,
    master: "remora0",
    up: true,
    mtu: 1500,
    mac: "",
    kind: "veth",
    addresses: [],
    ...more,
  };
}

test("a sandbox is cut off when its interface is gone, down, or on no bridge of ours", () => {
  const ids = ["whole", "gone", "down", "loose", "elsewhere"];
  const bridge = link("remora0", { master: undefined, kind: "bridge" });
  const links = [
    link(vethName("whole")),
    link(vethName("down"), { up: false }),
    link(vethName("loose"), { master: undefined }),
    link(vethName("elsewhere"), { master: "docker0" }),
  ];
  assert.deepEqual(cutOff(ids, [bridge, ...links], "remora0"), ids.slice(1));
  // Without the bridge there is nothing to connect them to.
  assert.deepEqual(cutOff(ids, links, "remora0"), []);
});
