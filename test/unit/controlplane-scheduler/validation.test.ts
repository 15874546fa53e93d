import assert from "node:assert/strict";
import { test } from "node:test";

import {
  validateAffinity,
  validateSpread,
} from "../../../src/controlplane/kinds/scheduling-validation.ts";

const required = "requiredDuringSchedulingIgnoredDuringExecution";
const labelSelector = { matchLabels: { app: "web" } };

const cases: readonly { title: string; term: Record<string, unknown>; want: readonly string[] }[] =
  [
    {
      title: "keys with a selector beside them are fine",
      term: { labelSelector, matchLabelKeys: ["version"], mismatchLabelKeys: ["track"] },
      want: [],
    },
    {
      title: "without a selector there is nothing to add to",
      term: { matchLabelKeys: ["version"], mismatchLabelKeys: ["track"] },
      want: [
        ".matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
        ".mismatchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
      ],
    },
    {
      title: "a key that the selector has already",
      term: { labelSelector, matchLabelKeys: ["version", "app"] },
      want: [`[1]: Invalid value: "app": exists in both matchLabelKeys and labelSelector`],
    },
    {
      title: "a key that must and must not match",
      term: { labelSelector, matchLabelKeys: ["version"], mismatchLabelKeys: ["version"] },
      want: [
        `.matchLabelKeys[0]: Invalid value: "version": exists in both matchLabelKeys and mismatchLabelKeys`,
      ],
    },
  ];

for (const { title, term, want } of cases) {
  test(`label keys of affinity: ${title}`, () => {
    const affinity = { podAffinity: { [required]: [{ topologyKey: "zone", ...term }] } };
    const field = `affinity.podAffinity.${required}[0]`;
    assert.deepEqual(
      validateAffinity(affinity, "affinity").map((each) => `${each.field}: ${each.message}`),
      want.map((each) => field + each),
    );
  });
}

test("label keys of topology spread follow the same rules, and must be label keys", () => {
  const constraint = {
    maxSkew: 1,
    topologyKey: "zone",
    whenUnsatisfiable: "DoNotSchedule",
    labelSelector,
    matchLabelKeys: ["-"],
  };
  const [error, ...more] = validateSpread([constraint], "spread");
  assert.equal(error?.field, "spread[0].matchLabelKeys[0]");
  assert.match(error.message, /^Invalid value: "-": name part must consist of/);
  assert.deepEqual(more, []);
});
