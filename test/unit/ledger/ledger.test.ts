import assert from "node:assert/strict";
import { test } from "node:test";

import { goneOf, stepOf, unionOf } from "../../../src/agent/ledger/removal.ts";
import { isStateName } from "../../../src/agent/ledger/state-names.ts";
import { unitOf } from "../../../src/agent/ledger/stop-agent.ts";
import { kubeletRoot } from "../../../src/agent/other-kubelet.ts";

test("the root directory of a kubelet is read from its command line", () => {
  const cases: readonly (readonly [string, string | undefined])[] = [
    ["/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml", "/var/lib/kubelet"],
    ["kubelet --root-dir=/data/kubelet/", "/data/kubelet"],
    ["kubelet --v=2 --root-dir /data/k", "/data/k"],
    ["/usr/bin/kubelet-wrapper --root-dir=/x", undefined],
    ["kube-proxy", undefined],
    ["", undefined],
  ];
  for (const [line, root] of cases) assert.equal(kubeletRoot(line.split(" ")), root, line);
});

test("the unit that would start an agent again is read from its cgroup", () => {
  assert.equal(unitOf("0::/system.slice/remora.service\n"), "remora.service");
  assert.equal(
    unitOf(
      "4:memory:/system.slice/remora-up.service\n1:name=systemd:/system.slice/remora-up.service\n",
    ),
    "remora-up.service",
  );
  assert.equal(unitOf("0::/user.slice/user-0.slice/session-3.scope\n"), undefined);
  assert.equal(unitOf("0::/system.slice/ssh.service\n"), undefined);
});

test("names in a state directory: ours, with what a crash leaves of them, and nobody else's", () => {
  for (const name of ["kubelet", "remora.json", "remora.json.0123456789ab.tmp", "lost+found"]) {
    assert.ok(isStateName("up", name), name);
  }
  for (const name of ["images", "kubelet.bak", "x.tmp", "pki"]) {
    assert.ok(!isStateName("up", name), name);
    assert.ok(!isStateName("run", name), name);
  }
});

test("a removal tells what is gone of what was there", () => {
  const [a, b] = [
    { what: "files", name: "/a" },
    { what: "mounts", name: "/a" },
  ];
  assert.deepEqual(goneOf([a, b], [b]), [a]);
  assert.deepEqual(unionOf([a], [b, a]), [a, b]);
  assert.equal(stepOf({ what: "log links" }), "removeLogLinks");
});
