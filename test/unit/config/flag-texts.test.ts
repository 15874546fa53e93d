import assert from "node:assert/strict";
import { test } from "node:test";

import { agentMembers } from "../../../src/config/agent-members.ts";
import {
  composeConfiguration,
  type Configuration,
  configurationFlags,
  type GivenFlag,
} from "../../../src/config/configuration.ts";
import type { ConfigKind } from "../../../src/config/load.ts";
import { flagTexts } from "../../../src/config/flag-texts.ts";
import { rawOf } from "./raw-of.ts";

function compose(flags: readonly GivenFlag[], kind?: ConfigKind, json = {}): Configuration {
  const origin = { kind: "file", file: "/c.yaml", line: 1 } as const;
  const documents = kind === undefined ? [] : [[kind, rawOf(json, origin)] as const];
  return composeConfiguration({ documents: new Map(documents), troubles: [], skipped: [] }, flags);
}

test("every flag has a text, as Go's flags print themselves", () => {
  const texts = flagTexts(
    compose([
      { name: "max-pods", texts: ["37"] },
      { name: "cluster-dns", texts: ["10.96.0.10,10.96.0.11"] },
      { name: "kube-reserved", texts: ["memory=1Gi,cpu=100m"] },
      { name: "node-status-update-frequency", texts: ["90s"] },
      { name: "register-with-taints", texts: ["a=b:NoSchedule,c=:NoExecute"] },
      { name: "v", texts: ["4"] },
      { name: "protect-kernel-defaults", texts: [""] },
    ]),
  );
  assert.deepEqual(Object.keys(texts).toSorted(), [...configurationFlags().keys()].toSorted());
  for (const [name, text] of Object.entries({
    "max-pods": "37",
    "cluster-dns": "[10.96.0.10,10.96.0.11]",
    "kube-reserved": "cpu=100m,memory=1Gi",
    "node-status-update-frequency": "1m30s",
    "register-with-taints": "[a=b:NoSchedule,c=:NoExecute]",
    v: "4",
    "protect-kernel-defaults": "true",
    "registry-burst": "10",
    "anonymous-auth": "false",
    "root-dir": "/var/lib/kubelet",
    kubeconfig: "",
  })) {
    assert.equal(texts[name], text, name);
  }
});

test("what files say is the configuration's, and a secret is nobody's", () => {
  const texts = flagTexts(
    compose([{ name: "max-pods", texts: ["37"] }], "KubeletConfiguration", {
      maxPods: 50,
      registryBurst: 20,
    }),
  );
  assert.equal(texts["max-pods"], "37");
  assert.equal(texts["registry-burst"], "10");
  const secret = flagTexts(
    compose([{ name: "manifest-url-header", texts: ["Authorization:Bearer s3cret"] }]),
  );
  assert.equal(secret["manifest-url-header"], "CLASSIFIED");
  assert.equal(JSON.stringify(secret).includes("s3cret"), false);
});

test("the agent's own configuration carries them for /flagz", () => {
  const { flags } = agentMembers(compose([{ name: "max-pods", texts: ["37"] }]), 2);
  assert.equal(flags?.["max-pods"], "37");
});
