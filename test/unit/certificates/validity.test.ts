import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { describe, test } from "node:test";

import {
  alternativeNames,
  commonName,
  isExpired,
  renewalTime,
  retryDelayMs,
  rotationReason,
} from "../../../src/agent/certificates/validity.ts";
import { certificate, newPrivateKey } from "../../../src/lib/x509.ts";

const key = newPrivateKey();
const from = Date.UTC(2026, 0, 1);
const day = 86_400_000;
const subject = { commonName: "system:node:n1", organizations: ["system:nodes"] };
const held = new X509Certificate(
  certificate(
    {
      subject,
      alternativeNames: ["n1", "192.0.2.1", "2001:db8::1"],
      usages: ["server"],
      notBefore: from,
      notAfter: from + 100 * day,
    },
    key,
    { name: subject, privateKey: key },
  ),
);

describe("why a certificate is replaced", () => {
  const wanted = { commonName: "system:node:n1", alternativeNames: ["n1", "192.0.2.1"] };
  const early = { deadline: from + 80 * day, now: from + 10 * day };
  const cases: readonly [string, ReturnType<typeof rotationReason>, string | undefined][] = [
    ["it is good", rotationReason(held, wanted, early), undefined],
    ["there is none", rotationReason(undefined, wanted, early), "missing"],
    ["its time has come", rotationReason(held, wanted, { ...early, now: early.deadline }), "due"],
    ["it has ended", rotationReason(held, wanted, { ...early, now: from + 100 * day }), "expired"],
    [
      "it is another's",
      rotationReason(held, { ...wanted, commonName: "system:node:n2" }, early),
      "subject",
    ],
    [
      "an address has come",
      rotationReason(held, { ...wanted, alternativeNames: ["n1", "192.0.2.2"] }, early),
      "names",
    ],
    [
      "an address has gone, which is no reason",
      rotationReason(held, { ...wanted, alternativeNames: ["n1"] }, early),
      undefined,
    ],
    [
      "addresses are compared in canonical form",
      rotationReason(held, { ...wanted, alternativeNames: ["2001:db8::1"] }, early),
      undefined,
    ],
  ];
  for (const [title, found, reason] of cases)
    test(`${title}: ${reason ?? "kept"}`, () => assert.equal(found, reason));
});

test("what a certificate says", () => {
  assert.equal(commonName(held), "system:node:n1");
  assert.deepEqual([...alternativeNames(held)], ["n1", "192.0.2.1", "2001:db8::1"]);
  assert.equal(isExpired(held, from + 100 * day - 1), false);
  assert.equal(isExpired(held, from + 100 * day), true);
  assert.equal(renewalTime(held, 0), from + 70 * day);
  assert.equal(renewalTime(held, 0.5), from + 80 * day);
});

test("tries come after 2, 4, 8, 16, 32, 32 seconds, up to a tenth later", () => {
  assert.deepEqual(
    [1, 2, 3, 4, 5, 6, 1000].map((failures) => retryDelayMs(failures, 0)),
    [2, 4, 8, 16, 32, 32, 32].map((seconds) => seconds * 1000),
  );
  assert.equal(retryDelayMs(1, 1), 2200);
});
