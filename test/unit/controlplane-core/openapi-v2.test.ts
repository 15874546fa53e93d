import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { openApiV2Protobuf } from "../../../src/controlplane/openapi/openapi-v2.ts";

describe("/openapi/v2", () => {
  test("the protobuf form is gnostic's Document: swagger 1, info 2, paths 8, definitions 9", () => {
    // By hand from OpenAPIv2.proto: every field is length-delimited (wire type 2).
    const info = "\x0a\x0aKubernetes\x12\x041.36";
    assert.equal(
      openApiV2Protobuf().toString("latin1"),
      `\x0a\x032.0\x12${String.fromCharCode(info.length)}${info}\x42\x00\x4a\x00`,
    );
  });
});
