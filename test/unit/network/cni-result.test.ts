import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import { CniError } from "../../../src/network/cni/errors.ts";
import { parseResult, podAddresses, resultAddresses } from "../../../src/network/cni/result.ts";

function addresses(result: object, version = "1.0.0"): readonly string[] {
  return resultAddresses(parseResult(JSON.stringify(result), version), "eth0");
}

describe("a plug-in's result", () => {
  test("of versions before 0.3.0 has one address of each family", () => {
    const result = {
      cniVersion: "0.2.0",
      ip4: { ip: "10.1.2.3/24", gateway: "10.1.2.1" },
      ip6: { ip: "FD00::3/64" },
    };
    assert.deepEqual(addresses(result), ["10.1.2.3", "fd00::3"]);
  });

  for (const version of ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]) {
    test(`of version ${version} has the addresses of the pod's interface`, () => {
      const result = {
        cniVersion: version,
        interfaces: [
          { name: "cni0" },
          { name: "veth1" },
          { name: "eth0", sandbox: "/proc/1/ns/net" },
          { name: "net1", sandbox: "/proc/1/ns/net" },
        ],
        ips: [
          { version: "6", address: "fd00::9/64", interface: 2 },
          { version: "4", address: "10.1.2.9/24", gateway: "10.1.2.1", interface: 2 },
          { version: "4", address: "192.168.9.9/24", interface: 3 },
        ],
      };
      assert.deepEqual(addresses(result), ["fd00::9", "10.1.2.9"]);
      assert.deepEqual(podAddresses(addresses(result)), ["10.1.2.9", "fd00::9"]);
    });
  }

  test("without interfaces is about the pod's", () => {
    assert.deepEqual(addresses({ cniVersion: "1.0.0", ips: [{ address: "10.0.0.5/32" }] }), [
      "10.0.0.5",
    ]);
  });

  test("without a version has the configuration's", () => {
    const result = parseResult(JSON.stringify({ ip4: { ip: "10.0.0.5/24" } }), "0.2.0");
    assert.equal(result["cniVersion"], "0.2.0");
    assert.deepEqual(resultAddresses(result, "eth0"), ["10.0.0.5"]);
  });

  test("keeps what the next plug-in may want", () => {
    const text = JSON.stringify({
      cniVersion: "1.1.0",
      ips: [],
      x: { y: 1 },
      dns: { domain: "d" },
    });
    const { dns, x } = parseResult(text, "1.1.0");
    assert.deepEqual([x, dns], [{ y: 1 }, { domain: "d" }]);
  });

  test("with several addresses of a family shows the first of each", () => {
    assert.deepEqual(podAddresses(["fd00::1", "10.0.0.1", "10.0.0.2", "fd00::2"]), [
      "10.0.0.1",
      "fd00::1",
    ]);
    assert.deepEqual(podAddresses([]), []);
  });

  for (const [why, text, message] of [
    ["nothing", "", /result "" is no JSON/],
    ["garbage", "segmentation fault", /result "segmentation fault" is no JSON/],
    ["another JSON", "[1]", /is no JSON object/],
    ["another version", '{"cniVersion":"7.0.0"}', /unsupported CNI result version "7.0.0"/],
    ["an address that is none", '{"ips":[{"address":"ten/24"}]}', /has "ten\/24" for an address/],
    ["no address in an entry", '{"ips":[{}]}', /for an address/],
    [
      "an interface that is not there",
      '{"interfaces":[],"ips":[{"address":"10.0.0.1/24","interface":1}]}',
      /interface number 1 is > number of interfaces 0/,
    ],
  ] as const) {
    test(`is refused with ${why}`, () => {
      assert.throws(() => parseResult(text, "1.0.0"), { code: "REMORA_CNI", message });
    });
  }

  test("of any shape is read or refused, and nothing else", () => {
    const shape = fc.record(
      {
        cniVersion: fc.constantFrom("0.2.0", "1.0.0", "", 3, undefined),
        ips: fc.oneof(
          fc.jsonValue(),
          fc.array(fc.record({ address: fc.jsonValue(), interface: fc.jsonValue() })),
        ),
        interfaces: fc.oneof(fc.jsonValue(), fc.array(fc.record({ name: fc.jsonValue() }))),
        ip4: fc.jsonValue(),
        ip6: fc.oneof(fc.jsonValue(), fc.record({ ip: fc.jsonValue() })),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(fc.oneof(shape, fc.jsonValue()), (value) => {
        try {
          parseResult(JSON.stringify(value) ?? "", "1.0.0");
        } catch (error) {
          assert.ok(error instanceof CniError, String(error));
        }
      }),
      { numRuns: 500 },
    );
  });

  test("of any length is quoted in part", () => {
    assert.throws(
      () => parseResult("x".repeat(10_000), "1.0.0"),
      (error: Error) => error.message.length < 500,
    );
  });
});
