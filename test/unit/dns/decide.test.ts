import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { decideDns, nodeDnsProxyName } from "../../../src/dns/decide.ts";
import { parseDnsService, proxyNameLabel } from "../../../src/dns/parse.ts";

const address = "10.96.0.10";

function nameService(proxyName: string | undefined, ip = address) {
  const labels = proxyName === undefined ? {} : { [proxyNameLabel]: proxyName };
  return parseDnsService({
    metadata: { namespace: "kube-system", name: "kube-dns", labels },
    spec: { clusterIP: ip, clusterIPs: [ip] },
  });
}

const ours = nameService(nodeDnsProxyName);
const others = nameService(undefined);

describe("who answers the cluster's DNS", () => {
  const table = [
    ["auto: the Service leaves it to nodes", "auto", [ours], false, [address]],
    ["auto: pods answer", "auto", [others], true, []],
    ["auto: pods will answer", "auto", [others], false, []],
    ["auto: another proxy's Service", "auto", [nameService("cilium")], false, []],
    ["auto: no such Service", "auto", [], false, []],
    [
      "auto: the Service has another address",
      "auto",
      [nameService(nodeDnsProxyName, "10.96.0.11")],
      false,
      [],
    ],
    ["local: no such Service", "local", [], false, [address]],
    ["local: the Service leaves it to nodes", "local", [ours], true, [address]],
    ["local: nobody is behind the Service", "local", [others], false, [address]],
    ["local: pods answer", "local", [others], true, []],
    ["off", "off", [ours], false, []],
  ] as const;
  for (const [name, mode, services, endpoints, expected] of table) {
    it(name, () => {
      const { serve } = decideDns(mode, [address], services, () => endpoints);
      assert.deepEqual(serve, expected);
    });
  }

  it("says which Service keeps the node from what it was told to do", () => {
    const { refusals } = decideDns("local", [address], [others], () => true);
    assert.deepEqual(refusals, [{ address, service: "kube-system/kube-dns" }]);
    assert.deepEqual(decideDns("auto", [address], [others], () => true).refusals, []);
  });

  it("decides each address by itself", () => {
    const { serve } = decideDns("auto", ["fd00::a", address], [ours], () => false);
    assert.deepEqual(serve, [address]);
  });
});
