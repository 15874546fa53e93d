import assert from "node:assert/strict";
import { describe, it } from "node:test";

import * as fc from "fast-check";

import {
  escapeFieldValue,
  formatLabels,
  formatRequirements,
  labelSelectorRequirements,
  matchesFields,
  matchesLabels,
  parseFieldSelector,
  parseLabelSelector,
  SelectorError,
} from "../../../src/api/labels.ts";

describe("label selector", () => {
  const labels = { app: "web", tier: "front", n: "5", empty: "" };
  const table: readonly (readonly [string, boolean])[] = [
    ["", true],
    ["app=web", true],
    ["app==web", true],
    ["app = web , tier = front", true],
    ["app!=web", false],
    ["other!=x", true],
    ["app", true],
    ["!app", false],
    ["!other", true],
    ["other", false],
    ["app in (web,db)", true],
    ["app in (db)", false],
    ["app notin (db)", true],
    ["other notin (db)", true],
    ["app notin (web)", false],
    ["empty=", true],
    ["app=", false],
    ["empty in ()", true],
    ["empty in (,a)", true],
    ["n>4", true],
    ["n>5", false],
    ["n<6,app=web", true],
    ["app>4", false],
    ["constructor", false],
    ["in in (in)", false],
    ["example.com/x notin (a)", true],
  ];
  for (const [text, expected] of table) {
    it(`${JSON.stringify(text)} ${expected ? "selects" : "does not select"}`, () => {
      assert.equal(matchesLabels(parseLabelSelector(text), labels), expected);
    });
  }

  const invalid: readonly (readonly [string, string])[] = [
    ["app=web,", "found '', expected: identifier after ','"],
    ["=web", "found '=', expected: !, identifier, or 'end of string'"],
    ["app in web", "unable to parse requirement: found 'web' expected: '('"],
    ["app in (a", "unable to parse requirement: found '', expected: ',', ')' or identifier"],
    [
      "app~web",
      'unable to parse requirement: <nil>: Invalid value: "app~web": name part must consist',
    ],
    ["app web", "unable to parse requirement: found 'web', expected: in, notin, =, ==, !=, gt, lt"],
    ["app=a b", "found 'b', expected: ',' or 'end of string'"],
    [
      "n>x",
      "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators",
    ],
    [
      "app=-a",
      'unable to parse requirement: values[0][app]: Invalid value: "-a": a valid label must',
    ],
  ];
  for (const [text, message] of invalid) {
    it(`refuses ${JSON.stringify(text)}`, () => {
      assert.throws(
        () => parseLabelSelector(text),
        (error) => {
          assert.ok(error instanceof SelectorError);
          assert.ok(error.message.startsWith(message), error.message);
          return true;
        },
      );
    });
  }

  it("prints what it reads", () => {
    for (const text of ["a=b", "a!=b", "a", "!a", "a in (b,c)", "a notin (b,c)", "a>1", "a=b,c"]) {
      assert.equal(formatRequirements(parseLabelSelector(text)), text);
    }
    assert.equal(formatLabels({ b: "2", a: "1" }), "a=1,b=2");
  });

  it("reads selector objects", () => {
    const requirements = labelSelectorRequirements({
      matchLabels: { app: "web" },
      matchExpressions: [
        { key: "tier", operator: "In", values: ["front", "back"] },
        { key: "gone", operator: "DoesNotExist" },
      ],
    });
    assert.equal(matchesLabels(requirements, labels), true);
    assert.equal(matchesLabels(requirements, { app: "web" }), false);
    assert.equal(matchesLabels(labelSelectorRequirements({}), undefined), true);
  });

  it("refuses selector objects whose values do not fit the operator", () => {
    for (const expression of [
      { key: "a", operator: "In", values: [] },
      { key: "a", operator: "Exists", values: ["b"] },
      { key: "a", operator: "Equals", values: ["b"] },
    ]) {
      assert.throws(
        () => labelSelectorRequirements({ matchExpressions: [expression] }),
        SelectorError,
      );
    }
  });
});

describe("field selector", () => {
  const fields: Record<string, string> = { "spec.nodeName": "n1", "status.phase": "Running" };
  const valueOf = (field: string): string => fields[field] ?? "";

  it("matches by equality and inequality", () => {
    const table: readonly (readonly [string, boolean])[] = [
      ["", true],
      ["spec.nodeName=n1", true],
      ["spec.nodeName==n1,status.phase!=Failed", true],
      ["spec.nodeName!=n1", false],
      ["spec.nodeName=", false],
      ["metadata.namespace=", true],
    ];
    for (const [text, expected] of table) {
      assert.equal(matchesFields(parseFieldSelector(text), valueOf), expected, text);
    }
  });

  it("refuses what is no condition", () => {
    assert.throws(() => parseFieldSelector("spec.nodeName"), {
      message: "invalid selector: 'spec.nodeName'; can't understand 'spec.nodeName'",
    });
    assert.throws(() => parseFieldSelector("a=b=c"), /unescaped character in value: =/);
    assert.throws(() => parseFieldSelector("a=\\b"), /invalid escape sequence: \\b/);
    assert.throws(() => parseFieldSelector("a=b\\"), /invalid escape sequence: \\/);
  });

  it("gives any escaped value back", () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (a, b) => {
        const text = `x=${escapeFieldValue(a)},y!=${escapeFieldValue(b)}`;
        assert.deepEqual(parseFieldSelector(text), [
          { field: "x", operator: "=", value: a },
          { field: "y", operator: "!=", value: b },
        ]);
      }),
    );
  });
});
