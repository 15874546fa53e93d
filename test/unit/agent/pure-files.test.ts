import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../..", import.meta.url));

/** Files that decide and do nothing: the same input always gives the same output, and nothing is awaited. */
const pure = [
  "src/kubelet/pods/{compute-actions,container-rules,prune-actions,admission,unsupported}.ts",
  "src/kubelet/status/{compute-status,conditions,container-status,phase,status-patch}.ts",
  "src/kubelet/spec/*.ts",
  "src/kubelet/node/{allocatable,choose-node-ips,conditions,hardware-labels,node-status}.ts",
  "src/kubelet/stats/{cgroup-text,cadvisor-families,cadvisor-text,page,pod-start,resource-text,summary}.ts",
  "src/proxy/{categorize,diff,plan,service-model,slice-index}.ts",
  "src/proxy/nftables/{layout,render}.ts",
  "src/netfilter/transaction.ts",
  "src/network/route-plan.ts",
  "src/runtime/docker/{container-config,records,reference,demux}.ts",
  "src/controlplane/patch/*.ts",
  "src/controlplane/scheduler/plugins/*.ts",
  "src/controlplane/controllers/deployment/{annotations,conditions,draft,plan,rollback,scale,status,template,view}.ts",
  "src/controlplane/controllers/{replication,garbage-collector}/decide.ts",
  "src/controlplane/auth/{rules,node-references,node-authorizer}.ts",
  "src/controlplane/controllers/certificates/rules.ts",
  "src/api/{quantity,labels,names,pod-requests,selectors,tolerations}.ts",
  "src/agent/certificates/validity.ts",
  "src/lib/{cidr,der,guard,backoff}.ts",
];

describe("pure files", () => {
  for (const pattern of pure) {
    test(`${pattern} neither waits nor reads the clock`, () => {
      const files = globSync(pattern, { cwd: root });
      assert.ok(files.length > 0, "the pattern finds files");
      for (const file of files) {
        const code = readFileSync(join(root, file), "utf8").replaceAll(
          /\/\*[\s\S]*?\*\/|\/\/.*$/gm,
          "",
        );
        assert.doesNotMatch(code, /\basync\b|\bawait\b|new Promise|new Date\(\)|node:fs/, file);
      }
    });
  }
});
