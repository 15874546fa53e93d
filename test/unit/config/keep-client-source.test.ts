import assert from "node:assert/strict";
import { test } from "node:test";

import { agentMembers } from "../../../src/config/agent-members.ts";
import { composeConfiguration } from "../../../src/config/configuration.ts";
import type { Json } from "../../../src/config/shape.ts";
import { rawOf } from "./raw-of.ts";

function keepClientSource(document: Json): unknown {
  const raw = rawOf(document, { kind: "file", file: "/c.yaml", line: 7 });
  const documents = new Map([["RemoraConfiguration", raw] as const]);
  const configuration = composeConfiguration({ documents, troubles: [], skipped: [] }, []);
  assert.deepEqual(configuration.remarks, []);
  return agentMembers(configuration, 4).proxy?.keepClientSource;
}

test("keepClientSource is said or left to who starts the agent", () => {
  assert.equal(keepClientSource({}), undefined);
  assert.equal(keepClientSource({ keepClientSource: true }), true);
  assert.equal(keepClientSource({ keepClientSource: false }), false);
});
