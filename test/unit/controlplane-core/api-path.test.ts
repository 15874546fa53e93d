import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { parseApiPath } from "../../../src/controlplane/http/api-path.ts";

describe("what follows a proxy subresource", () => {
  for (const [path, rest] of [
    ["/api/v1/nodes/n/proxy", ""],
    ["/api/v1/nodes/n/proxy/", ""],
    ["/api/v1/nodes/n/proxy/logs", "/logs"],
    ["/api/v1/nodes/n/proxy/logs/", "/logs/"],
    ["/api/v1/nodes/n/proxy/logs/a%2Fb", "/logs/a%2Fb"],
    ["/api/v1/namespaces/ns/pods/p/proxy/a//b/", "/a//b/"],
  ] as const) {
    test(`${path} goes on with ${rest || "nothing"}`, () => {
      const parsed = parseApiPath(path);
      assert.equal(parsed.kind === "resource" ? parsed.rest : undefined, rest);
    });
  }

  test("elsewhere a slash at the end changes nothing", () => {
    assert.deepEqual(parseApiPath("/api/v1/nodes/n/"), parseApiPath("/api/v1/nodes/n"));
  });
});
