import assert from "node:assert/strict";
import { describe, it } from "node:test";

import * as fc from "fast-check";

import {
  addQuantities,
  compareQuantities,
  formatQuantity,
  milliQuantityOf,
  milliValue,
  parseQuantity,
  quantityOf,
  quantityProblem,
  subtractQuantities,
  value,
} from "../../../src/api/quantity.ts";
import { ParseError } from "../../../src/lib/errors.ts";

describe("quantity", () => {
  const canonical: readonly (readonly [string, string])[] = [
    ["0", "0"],
    ["0Ki", "0"],
    ["-0", "0"],
    ["1", "1"],
    ["+1", "1"],
    ["1.", "1"],
    [".001", "1m"],
    ["0.5", "500m"],
    ["1500m", "1500m"],
    ["2000m", "2"],
    ["1024", "1024"],
    ["1024Ki", "1Mi"],
    ["1.5Gi", "1536Mi"],
    ["0.5Mi", "512Ki"],
    ["1Ki", "1Ki"],
    ["0.5Ki", "512"],
    ["1023Mi", "1023Mi"],
    ["1000k", "1M"],
    ["50k", "50k"],
    ["123456789", "123456789"],
    ["1e3", "1e3"],
    ["1E3", "1e3"],
    ["1e14", "100e12"],
    ["12E", "12E"],
    ["1.3E+6", "1300e3"],
    ["0.5e-1", "50e-3"],
    ["100.035Ki", "102435840m"],
    ["3.001n", "4n"],
    ["0.0000000001", "1n"],
    ["-0.0000000001", "-1n"],
    ["0.1m", "100u"],
    ["9Ei", "9223372036854775807"],
    ["-9Ei", "-9223372036854775807"],
    ["0.000000000001Ki", "2n"],
  ];
  for (const [text, expected] of canonical) {
    it(`prints ${text} as ${expected}`, () => {
      assert.equal(formatQuantity(parseQuantity(text)), expected);
    });
  }

  const invalid: readonly (readonly [string, string])[] = [
    ["", "unable to parse numeric part of quantity"],
    [".", "unable to parse numeric part of quantity"],
    ["aoeu", "quantities must match the regular expression"],
    ["1.1.M", "quantities must match the regular expression"],
    [" 1", "quantities must match the regular expression"],
    ["1 ", "quantities must match the regular expression"],
    ["1i", "unable to parse quantity's suffix"],
    ["0.1mi", "unable to parse quantity's suffix"],
    ["-3.01e-", "unable to parse quantity's suffix"],
    ["1KiB", "quantities must match the regular expression"],
    ["1e999999999", "unable to parse numeric part of quantity"],
  ];
  for (const [text, problem] of invalid) {
    it(`refuses ${JSON.stringify(text)}`, () => {
      assert.ok(quantityProblem(text)?.startsWith(problem), quantityProblem(text));
      assert.throws(
        () => parseQuantity(text, "$.cpu"),
        (error) => error instanceof ParseError && error.path === "$.cpu",
      );
    });
  }

  it("rounds away from zero when whole units or thousandths are asked for", () => {
    assert.equal(value(parseQuantity("1100m")), 2n);
    assert.equal(value(parseQuantity("-1100m")), -2n);
    assert.equal(milliValue(parseQuantity("1u")), 1n);
    assert.equal(milliValue(parseQuantity("250m")), 250n);
    assert.equal(value(parseQuantity("1Gi")), 1_073_741_824n);
  });

  it("keeps the format of the first summand, unless that is zero", () => {
    const gibibyte = parseQuantity("1Gi");
    assert.equal(formatQuantity(addQuantities(gibibyte, parseQuantity("1048576"))), "1025Mi");
    assert.equal(formatQuantity(addQuantities(parseQuantity("0"), gibibyte)), "1Gi");
    assert.equal(formatQuantity(subtractQuantities(gibibyte, parseQuantity("512Mi"))), "512Mi");
  });

  it("makes quantities from numbers", () => {
    assert.equal(formatQuantity(quantityOf(16_384 * 1024, "BinarySI")), "16Mi");
    assert.equal(formatQuantity(milliQuantityOf(3920, "DecimalSI")), "3920m");
  });

  const quantities = fc
    .tuple(
      fc.bigInt({ min: -(10n ** 24n), max: 10n ** 24n }),
      fc.constantFrom("DecimalSI", "BinarySI", "DecimalExponent"),
    )
    .map(([nanos, format]) => ({ nanos, format }) as const);

  it("reads back exactly what it prints", () => {
    fc.assert(
      fc.property(quantities, (quantity) => {
        const text = formatQuantity(quantity);
        assert.equal(parseQuantity(text).nanos, quantity.nanos);
        assert.equal(formatQuantity(parseQuantity(text)), text);
      }),
    );
  });

  it("adds and compares like numbers", () => {
    fc.assert(
      fc.property(quantities, quantities, (a, b) => {
        const sum = addQuantities(a, b);
        assert.equal(subtractQuantities(sum, b).nanos, a.nanos);
        assert.equal(
          Math.sign(compareQuantities(sum, a)),
          Number(b.nanos > 0n) - Number(b.nanos < 0n),
        );
        assert.ok(milliValue(a) * 1_000_000n >= a.nanos || a.nanos < 0n);
      }),
    );
  });

  it("never throws anything but a ParseError, and agrees with quantityProblem", () => {
    const alphabet = fc.constantFrom(...Array.from("0123456789.+-eEinumkKMGTP "));
    fc.assert(
      fc.property(fc.string({ unit: alphabet, maxLength: 12 }), (text) => {
        if (quantityProblem(text) === undefined) parseQuantity(text);
        else assert.throws(() => parseQuantity(text), ParseError);
      }),
    );
  });
});
