import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { checkPodLogOptions } from "../../../src/controlplane/http/pod-log-options.ts";
import { StatusError } from "../../../src/controlplane/status-error.ts";

function refusal(query: string): StatusError | undefined {
  try {
    checkPodLogOptions("web", new URLSearchParams(query));
    return undefined;
  } catch (error) {
    assert(error instanceof StatusError);
    return error;
  }
}

describe("parameters of pods/log", () => {
  for (const good of [
    "",
    "follow=true&previous=0&timestamps=yes",
    "tailLines=0&limitBytes=1&sinceSeconds=1",
    "tailLines=%2B7",
    "sinceTime=2026-01-01T00:00:00.5%2B02:00",
    "sinceTime=",
    "container=c&unknown=x",
  ]) {
    test(`${good === "" ? "none" : good}: fine`, () => assert.equal(refusal(good), undefined));
  }

  for (const [query, message] of [
    ["tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"],
    ["limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"],
    ["sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"],
    [
      "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
      "[]: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
    ],
    [
      "tailLines=-2&limitBytes=-3",
      "[tailLines: Invalid value: -2: must be greater than or equal to 0, limitBytes: Invalid value: -3: must be greater than 0]",
    ],
    ["stream=Stdout", "stream: Forbidden: may not be specified"],
  ] as const) {
    test(`${query}: 422`, () => {
      const error = refusal(query);
      assert.equal(error?.status, 422);
      assert.equal(error.reason, "Invalid");
      assert.equal(error.message, `PodLogOptions "web" is invalid: ${message}`);
      assert.equal(error.details?.kind, "PodLogOptions");
    });
  }

  for (const [query, message] of [
    ["tailLines=x", 'strconv.ParseInt: parsing "x": invalid syntax'],
    ["tailLines=", 'strconv.ParseInt: parsing "": invalid syntax'],
    ["limitBytes=1.5", 'strconv.ParseInt: parsing "1.5": invalid syntax'],
    [
      "sinceSeconds=9223372036854775808",
      'strconv.ParseInt: parsing "9223372036854775808": value out of range',
    ],
    [
      "sinceTime=yesterday",
      'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"',
    ],
    ["sinceTime=2026-13-01T00:00:00Z", 'parsing time "2026-13-01T00:00:00Z": month out of range'],
    ["sinceTime=2026-02-30T00:00:00Z", 'parsing time "2026-02-30T00:00:00Z": day out of range'],
    ["sinceTime=2026-01-01T24:00:00Z", 'parsing time "2026-01-01T24:00:00Z": hour out of range'],
  ] as const) {
    test(`${query}: 400`, () => {
      const error = refusal(query);
      assert.deepEqual([error?.status, error?.reason], [400, "BadRequest"]);
      assert.equal(error?.message, message);
    });
  }
});
