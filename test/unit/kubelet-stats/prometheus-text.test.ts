import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Histogram, labelText, renderMetrics, Values } from "../../../src/lib/metrics-text.ts";
import { Page } from "../../../src/kubelet/stats/page.ts";
import { parsePrometheus } from "../../fakes/prometheus-text.ts";

const head = "# HELP a_total text\n# TYPE a_total counter\n";

describe("the tests' own parser of the text format", () => {
  const refused: readonly (readonly [why: string, text: string])[] = [
    ["no end of the last line", `${head}a_total 1`],
    ["an empty line", `${head}\na_total 1\n`],
    ["a sample of another name", `${head}b_total 1\n`],
    ["a series twice", `${head}a_total 1\na_total 2\n`],
    ["a family twice", `${head}a_total 1\n${head}a_total{x="1"} 1\n`],
    ["a negative counter", `${head}a_total -1\n`],
    ["a value that is none", `${head}a_total undefined\n`],
    ["Infinity in JavaScript's words", `${head}a_total Infinity\n`],
    ["a torn label", `${head}a_total{x="1} 1\n`],
    ["a raw quote in a label", `${head}a_total{x="1"2"} 1\n`],
    ["uneven labels", `${head}a_total{x="1"} 1\na_total{y="1"} 1\n`],
    ["a time with a fraction", `${head}a_total 1 1.5\n`],
    ["a type without help", "# TYPE a_total counter\na_total 1\n"],
    [
      "a histogram without its last bucket",
      '# HELP h x\n# TYPE h histogram\nh_bucket{le="1"} 1\nh_sum 1\nh_count 1\n',
    ],
    [
      "a histogram that shrinks",
      '# HELP h x\n# TYPE h histogram\nh_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n',
    ],
  ];
  for (const [why, text] of refused) {
    test(`refuses ${why}`, () => assert.throws(() => parsePrometheus(text)));
  }

  test("takes escapes, infinities and times", () => {
    const text = `# HELP g x\n# TYPE g gauge\ng{x="a\\"b\\\\c\\nd"} +Inf 1700000000000\n`;
    assert.deepEqual(parsePrometheus(text).get("g")?.samples, [
      {
        name: "g",
        labels: { x: 'a"b\\c\nd' },
        value: Number.POSITIVE_INFINITY,
        timeMs: 1_700_000_000_000,
      },
    ]);
  });
});

describe("metrics as text", () => {
  test("what was escaped is read back", () => {
    const nasty = 'quote " backslash \\ newline \n end';
    const page = new Page();
    page.family("g", "gauge", "x").add(labelText({ nasty }), 1, 1.4);
    const [sample] = parsePrometheus(page.text()).get("g")?.samples ?? [];
    assert.equal(sample?.labels["nasty"], nasty);
    assert.equal(sample.timeMs, 1);
  });

  test("samples may come in any order, families stay together", () => {
    const page = new Page();
    const a = page.family("a", "gauge", "x");
    page.single("b", "gauge", "x", 1);
    a.add("", 1);
    page.family("a", "gauge", "x").add('{l="2"}', 2);
    page.family("never", "gauge", "x");
    assert.equal(
      page.text(),
      '# HELP a x\n# TYPE a gauge\na 1\na{l="2"} 2\n# HELP b x\n# TYPE b gauge\nb 1\n',
    );
  });

  test("an observation above all bounds is in the last bucket only, and what is removed is gone", () => {
    const histogram = new Histogram("h", "x", [1, 2]);
    histogram.observe(3, { of: "a" });
    histogram.observe(1, { of: "a" });
    histogram.observe(1, { of: "b" });
    histogram.remove({ of: "b" });
    const values = new Values("v", "gauge", "x");
    values.set(Number.POSITIVE_INFINITY);
    const families = parsePrometheus(renderMetrics([histogram, values]));
    assert.deepEqual(
      families.get("h")?.samples.map(({ value }) => value),
      [1, 1, 2, 4, 2],
    );
    assert.equal(families.get("v")?.samples[0]?.value, Number.POSITIVE_INFINITY);
  });
});
