import assert from "node:assert/strict";
import { describe, it } from "node:test";

import {
  validateConfigMapKey,
  validateDNS1035Label,
  validateDNS1123Label,
  validateDNS1123Subdomain,
  validateEnvVarName,
  validateLabelValue,
  validatePathSegmentName,
  validatePortName,
  validatePortNumber,
  validateQualifiedName,
  validateRelaxedEnvVarName,
} from "../../../src/api/names.ts";

describe("names", () => {
  const long = "a".repeat(64);
  const valid: readonly (readonly [(value: string) => string[], readonly string[]])[] = [
    [validateDNS1123Label, ["a", "0", "a-b", "123-abc", "a".repeat(63)]],
    [validateDNS1123Subdomain, ["a", "a.b", "1.2-c", `${"a".repeat(63)}.b`, long]],
    [validateDNS1035Label, ["a", "abc-123"]],
    [validateQualifiedName, ["a", "A_b.c-D", "example.com/a", "0"]],
    [validateLabelValue, ["", "a", "A_b.c-1", "a".repeat(63)]],
    [validateEnvVarName, ["A", "_a.b-c", "a1"]],
    [validateRelaxedEnvVarName, ["1a", "a b", "~"]],
    [validateConfigMapKey, ["a", ".a", "A_b-c.d"]],
    [validatePortName, ["http", "a-1", "1a"]],
    [validatePathSegmentName, ["a", "...", "a b"]],
  ];
  for (const [validate, values] of valid) {
    it(`${validate.name} accepts what it should`, () => {
      for (const value of values) assert.deepEqual(validate(value), [], value);
    });
  }

  const invalid: readonly (readonly [(value: string) => string[], readonly string[]])[] = [
    [validateDNS1123Label, ["", "A", "-a", "a-", "a_b", "a.b", long, "a\n"]],
    [validateDNS1123Subdomain, ["", "A", ".a", "a..b", "a.-b", "a".repeat(254)]],
    [validateDNS1035Label, ["", "1a", "a-", long]],
    [validateQualifiedName, ["", "/a", "a/", "a/b/c", "A.com/a", "-a", long]],
    [validateLabelValue, ["-a", "a-", "a b", long]],
    [validateEnvVarName, ["", "1a", "a b", ".", "..", "..a"]],
    [validateRelaxedEnvVarName, ["", "a=b", "a\n", "ä"]],
    [validateConfigMapKey, ["", "a/b", ".", "..", "..a", "a".repeat(254)]],
    [validatePortName, ["", "1", "a--b", "-a", "a-", "A", "a".repeat(16)]],
    [validatePathSegmentName, [".", "..", "a/b", "a%b"]],
  ];
  for (const [validate, values] of invalid) {
    it(`${validate.name} refuses what it should`, () => {
      for (const value of values) assert.notDeepEqual(validate(value), [], value);
    });
  }

  it("speaks the API's words", () => {
    assert.deepEqual(validateDNS1123Subdomain("A"), [
      "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    ]);
    assert.deepEqual(validateDNS1123Label("a.b"), ["must not contain dots"]);
    // Two spaces before "or": so it is upstream, and clients compare.
    assert.match(validateDNS1123Label("_")[0] ?? "", /\(e\.g\. 'my-name', {2}or '123-abc', regex/);
    assert.deepEqual(validateDNS1123Label(long), ["must be no more than 63 characters"]);
  });

  it("checks port numbers", () => {
    assert.deepEqual([1, 65_535].flatMap(validatePortNumber), []);
    for (const port of [0, -1, 65_536, 1.5]) {
      assert.deepEqual(validatePortNumber(port), ["must be between 1 and 65535, inclusive"]);
    }
  });
});
