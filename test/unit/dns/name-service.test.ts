import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { ensureNameService } from "../../../src/controlplane/name-service.ts";
import { decideDns } from "../../../src/dns/decide.ts";
import { parseDnsService } from "../../../src/dns/parse.ts";
import { parseCidr } from "../../../src/lib/cidr.ts";
import { silentLogger } from "../../../src/lib/log.ts";

type Registry = Parameters<typeof ensureNameService>[0];
type Context = Parameters<typeof ensureNameService>[1];

const context: Context = {
  user: { name: "system:apiserver", uid: "", groups: [], extra: {} },
  dryRun: false,
  now: 0,
  warn: () => undefined,
};

/** What is created in a service network, when `present` is there before. */
function created(network: string, present: object | undefined, refuse = false): object[] {
  const objects: object[] = [];
  const registry: Registry = {
    get: () => present as ReturnType<Registry["get"]>,
    create: (_resource, _namespace, object) => {
      if (refuse) throw new Error("provided IP is already allocated");
      objects.push(object);
      return object;
    },
  };
  ensureNameService(registry, context, parseCidr(network), silentLogger);
  return objects;
}

describe("the Service of cluster DNS", () => {
  it("is made at the tenth address, and such that nodes answer it", () => {
    const [object] = created("172.30.0.0/16", undefined);
    const service = parseDnsService(object);
    assert.deepEqual([service.key, service.clusterIPs], ["kube-system/kube-dns", ["172.30.0.10"]]);
    const { serve } = decideDns("auto", ["172.30.0.10"], [service], () => false);
    assert.deepEqual(serve, ["172.30.0.10"]);
  });

  it("stays as somebody changed it", () => {
    assert.deepEqual(created("172.30.0.0/16", { kind: "Service" }), []);
  });

  it("does not keep the control plane from starting", () => {
    assert.deepEqual(created("172.30.0.0/16", undefined, true), []);
    assert.deepEqual(created("172.30.0.0/29", undefined), []);
  });
});
