import type { JsonObject } from "../types.ts";

/**
 * `/openapi/v2` with no definitions: kubectl asks for it when a manifest's kind is in no v3 document, and refuses to go
 * on (to "no matches for kind", or to the items of a List) without an answer. All schemas are at `/openapi/v3`.
 */
export const openApiV2: JsonObject = {
  swagger: "2.0",
  info: { title: "Kubernetes", version: "1.36" },
  paths: {},
  definitions: {},
};

/** What kubectl accepts. */
export const openApiV2ProtobufAccept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/** What the answer is called: `@` is not allowed in a media type, and Go's parser refuses it. */
export const openApiV2ProtobufType = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

function lengthDelimited(field: number, content: Uint8Array): Buffer {
  // Field numbers below 16 and lengths below 128 take one byte each.
  return Buffer.concat([Buffer.of((field << 3) | 2, content.length), content]);
}

/** The same document in the protobuf form of gnostic's openapi.v2.Document: the only one kubectl reads. */
export function openApiV2Protobuf(): Buffer {
  const info = Buffer.concat([
    lengthDelimited(1, Buffer.from("Kubernetes")),
    lengthDelimited(2, Buffer.from("1.36")),
  ]);
  return Buffer.concat([
    lengthDelimited(1, Buffer.from("2.0")),
    lengthDelimited(2, info),
    lengthDelimited(8, Buffer.of()),
    lengthDelimited(9, Buffer.of()),
  ]);
}
