import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import { CniConfigError } from "../../../src/network/cni/errors.ts";
import {
  formatList,
  hasCapability,
  parseConfigList,
  parseSingleConfig,
} from "../../../src/network/cni/config.ts";
import { atLeast, compareVersions } from "../../../src/network/cni/versions.ts";

const bridge = { type: "bridge", bridge: "cni0", ipam: { type: "host-local" } };
const list = (more: object = {}): string =>
  JSON.stringify({ cniVersion: "1.0.0", name: "pods", plugins: [bridge], ...more });

describe("a CNI configuration list", () => {
  test("keeps what plug-ins understand and nobody else does", () => {
    const parsed = parseConfigList(
      list({
        plugins: [bridge, { type: "portmap", capabilities: { portMappings: true, dns: false } }],
      }),
    );
    assert.equal(parsed.name, "pods");
    assert.equal(parsed.cniVersion, "1.0.0");
    assert.deepEqual(parsed.plugins[0]?.raw, bridge);
    assert.deepEqual([...(parsed.plugins[1]?.capabilities ?? [])], ["portMappings"]);
    assert.equal(hasCapability(parsed, "portMappings"), true);
    assert.equal(hasCapability(parsed, "dns"), false);
  });

  test("written down and read again is the same", () => {
    const parsed = parseConfigList(list({ disableCheck: true, disableGC: "true" }));
    assert.deepEqual(parseConfigList(formatList(parsed)), {
      ...parsed,
      loadOnlyInlinedPlugins: true,
    });
  });

  for (const [why, more, expected] of [
    ["the newest version that both know", { cniVersions: ["0.4.0", "1.1.0", "2.0.0"] }, "1.1.0"],
    ["the single one, where the list has only unknown ones", { cniVersions: ["9.0.0"] }, "1.0.0"],
    ["the oldest, when nothing is said", { cniVersion: undefined }, "0.1.0"],
    ["the oldest, when what is said is empty", { cniVersion: "" }, "0.1.0"],
  ] as const) {
    test(`speaks ${why}`, () => {
      assert.equal(parseConfigList(list(more)).cniVersion, expected);
    });
  }

  for (const [key, value, expected] of [
    ["disableCheck", true, true],
    ["disableCheck", "TRUE", true],
    ["disableGC", "false", false],
    ["disableGC", undefined, false],
  ] as const) {
    test(`${key}: ${JSON.stringify(value)} counts as ${expected}`, () => {
      assert.equal(parseConfigList(list({ [key]: value }))[key], expected);
    });
  }

  for (const [why, text, message] of [
    ["no JSON", "{", /^error parsing configuration list: .*JSON/],
    ["another JSON", "[]", /no JSON object/],
    ["no name", list({ name: undefined }), /list: no name$/],
    ["a name of another type", list({ name: 3 }), /invalid name type number/],
    [
      "a name that leads elsewhere",
      list({ name: "../x" }),
      /invalid characters found in network name/,
    ],
    ["a version of another type", list({ cniVersion: 1 }), /invalid cniVersion type number/],
    [
      "versions that are none",
      list({ cniVersions: ["one"] }),
      /invalid cniVersions entry "one" at index 0/,
    ],
    [
      "versions of another type",
      list({ cniVersions: "1.0.0" }),
      /invalid type for cniVersions: string/,
    ],
    [
      "versions of the future alone",
      list({ cniVersion: "2.0.0" }),
      /unsupported CNI config version "2.0.0"/,
    ],
    [
      "a truth that is none",
      list({ disableCheck: "maybe" }),
      /invalid value "maybe" for disableCheck/,
    ],
    ["plug-ins of another type", list({ plugins: {} }), /invalid 'plugins' type object/],
    ["no plug-ins in the list", list({ plugins: [] }), /no plugins in list/],
    [
      "no plug-ins, and none to be found elsewhere",
      list({ plugins: undefined, loadOnlyInlinedPlugins: true }),
      /`loadOnlyInlinedPlugins` is true, and no 'plugins' key/,
    ],
    ["a plug-in without a type", list({ plugins: [{}] }), /plugin config 0: .*missing 'type'/],
    [
      "a plug-in that is a path",
      list({ plugins: [{ type: "../sh" }] }),
      /invalid plugin name: ..\/sh/,
    ],
  ] as const) {
    test(`is refused with ${why}`, () => {
      assert.throws(() => parseConfigList(text), { code: "REMORA_CNI_CONFIG", message });
    });
  }
});

describe("a configuration of any shape", () => {
  test("is read or refused, and nothing else; what is read can be written", () => {
    const plugins = fc.oneof(
      fc.jsonValue(),
      fc.array(
        fc.record(
          { type: fc.oneof(fc.string(), fc.jsonValue()), capabilities: fc.jsonValue() },
          { requiredKeys: [] },
        ),
      ),
    );
    const shape = fc.record(
      {
        name: fc.oneof(fc.constant("pods"), fc.string(), fc.jsonValue()),
        cniVersion: fc.oneof(fc.constantFrom("0.4.0", "1.1.0"), fc.jsonValue()),
        cniVersions: fc.oneof(fc.array(fc.constantFrom("1.0.0", "x")), fc.jsonValue()),
        disableCheck: fc.jsonValue(),
        plugins,
        type: fc.jsonValue(),
      },
      { requiredKeys: ["name", "plugins"] },
    );
    fc.assert(
      fc.property(shape, (value) => {
        for (const parse of [parseConfigList, parseSingleConfig]) {
          try {
            const parsed = parse(JSON.stringify(value));
            assert.deepEqual(parseConfigList(formatList(parsed)).plugins, parsed.plugins);
          } catch (error) {
            assert.ok(error instanceof CniConfigError, String(error));
          }
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("a configuration of one plug-in", () => {
  test("is a list of one", () => {
    const parsed = parseSingleConfig(
      JSON.stringify({ cniVersion: "0.3.1", name: "old", ...bridge }),
    );
    assert.equal(parsed.name, "old");
    assert.equal(parsed.cniVersion, "0.3.1");
    assert.deepEqual(
      parsed.plugins.map(({ type }) => type),
      ["bridge"],
    );
  });

  test("that is a list is told to be named so", () => {
    assert.throws(() => parseSingleConfig(list()), /must end in .conflist/);
  });
});

describe("versions", () => {
  test("are compared by their numbers", () => {
    assert.ok(compareVersions("0.10.0", "0.4.0") > 0);
    assert.ok(compareVersions("1.0.0", "1.1.0") < 0);
    assert.equal(compareVersions("1.0", "1.0.0"), 0);
    assert.equal(atLeast("nonsense", "0.1.0"), false);
  });
});
