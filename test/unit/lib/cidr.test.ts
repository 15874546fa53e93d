import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  canonicalIP,
  cidrAddress,
  cidrContains,
  cidrSize,
  formatCidr,
  parseCidr,
} from "../../../src/lib/cidr.ts";
import { ParseError } from "../../../src/lib/errors.ts";

describe("cidr", () => {
  const spellings: readonly (readonly [string, string])[] = [
    ["10.0.0.1", "10.0.0.1"],
    ["::", "::"],
    ["::1", "::1"],
    ["fd00:0:0:0:0:0:0:1", "fd00::1"],
    ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
    ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
    ["::ffff:10.0.0.1", "::ffff:a00:1"],
    ["FE80::ABCD", "fe80::abcd"],
  ];
  for (const [input, canonical] of spellings) {
    test(`${input} is written ${canonical}`, () => {
      assert.equal(canonicalIP(input), canonical);
    });
  }

  test("host bits of a network are cleared", () => {
    assert.equal(formatCidr(parseCidr("10.244.3.7/24")), "10.244.3.0/24");
    assert.equal(formatCidr(parseCidr("fd00:1::7/64")), "fd00:1::/64");
  });

  test("containment is exact at both ends and false for the other family", () => {
    const cidr = parseCidr("10.244.0.0/24");
    assert.equal(cidrSize(cidr), 256n);
    assert.deepEqual(
      ["10.243.255.255", "10.244.0.0", "10.244.0.255", "10.244.1.0", "::1"].map((ip) =>
        cidrContains(cidr, ip),
      ),
      [false, true, true, false, false],
    );
    assert.equal(cidrAddress(cidr, 10), "10.244.0.10");
  });

  for (const bad of [
    "10.0.0.0",
    "10.0.0.0/33",
    "10.0.0.0/-1",
    "10.0.0/8",
    "fd00::/129",
    "1.2.3.4/2/3",
    "x/8",
  ]) {
    test(`${bad} is refused with its path`, () => {
      assert.throws(
        () => parseCidr(bad, "spec.podCIDR"),
        (error) => error instanceof ParseError && error.path === "spec.podCIDR",
      );
    });
  }
});
