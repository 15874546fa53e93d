import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { parseNetworks } from "../../../src/controlplane/networks.ts";
import { SetupError } from "../../../src/lib/errors.ts";

function parse(
  serviceCIDRs: readonly string[],
  clusterCIDRs: readonly string[],
): readonly string[] {
  const { service, cluster } = parseNetworks({ serviceCIDRs, clusterCIDRs });
  return [service, cluster].map((networks) => networks.map(({ family }) => family).join());
}

const refused: readonly (readonly [readonly string[], readonly string[], RegExp])[] = [
  [["10.96.0.0"], ["10.244.0.0/16"], /service network.*"10\.96\.0\.0"/],
  [[], ["10.244.0.0/16"], /there is no service network/],
  [["10.96.0.0/16"], ["10.96.0.0/12"], /10\.96\.0\.0\/12.*overlap/],
  [["10.96.0.0/16"], ["10.244.0.0/25"], /at least a \/24/],
  [["10.96.0.0/30"], ["10.244.0.0/16"], /at least eight addresses/],
  [["fd00:96::/112"], ["fd00:244::/80"], /at least a \/64/],
  [["10.96.0.0/16", "10.97.0.0/16"], ["10.244.0.0/16"], /one of IPv4 and one of IPv6/],
  [["10.96.0.0/16", "fd00:96::/112", "fd00:97::/112"], ["10.244.0.0/16"], /one of IPv4 and one/],
  [["10.96.0.0/16", "fd00:96::/112"], ["10.244.0.0/16"], /families in the same order/],
  [["10.96.0.0/16", "fd00:96::/112"], ["fd00:244::/56", "10.244.0.0/16"], /in the same order/],
  [["10.96.0.0/16", "fd00:96::/112"], ["10.244.0.0/16", "fd00:96::/56"], /fd00:96::\/56.*overlap/],
];

describe("networks of a cluster", () => {
  it("are of one family, or of both in the order of choice", () => {
    assert.deepEqual(parse(["10.96.0.0/16"], ["10.244.0.0/16"]), ["IPv4", "IPv4"]);
    assert.deepEqual(parse(["fd00:96::/112"], ["fd00:244::/56"]), ["IPv6", "IPv6"]);
    const both = parse(["fd00:96::/112", "10.96.0.0/16"], ["fd00:244::/56", "10.244.0.0/16"]);
    assert.deepEqual(both, ["IPv6,IPv4", "IPv6,IPv4"]);
  });

  for (const [service, cluster, message] of refused) {
    it(`${service.join()} and ${cluster.join()} are refused with the reason`, () => {
      assert.throws(
        () => parse(service, cluster),
        (error) => error instanceof SetupError && message.test(error.message),
      );
    });
  }
});
