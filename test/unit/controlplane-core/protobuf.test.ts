import assert from "node:assert/strict";
import { test } from "node:test";

import * as fc from "fast-check";

import { decodeProtobuf, isProtobuf } from "../../../src/controlplane/proto/decode-protobuf.ts";
import { decodeObject } from "../../../src/controlplane/schema/decode.ts";

function varint(value: number): number[] {
  const out: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  do {
    const more = rest > 0x7fn;
    out.push(Number(rest & 0x7fn) | (more ? 0x80 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return out;
}

type Part = readonly number[];

const int = (field: number, value: number): Part => [...varint(field << 3), ...varint(value)];
const bytes = (field: number, value: Part | string): Part => {
  const content = typeof value === "string" ? [...Buffer.from(value)] : value;
  return [...varint((field << 3) | 2), ...varint(content.length), ...content];
};
const message = (...parts: readonly Part[]): Part => parts.flat();

function envelope(apiVersion: string, kind: string, body: Part): Uint8Array {
  const type = message(bytes(1, apiVersion), bytes(2, kind));
  return Uint8Array.from([...Buffer.from("k8s\0"), ...message(bytes(1, type), bytes(2, body))]);
}

const meta = (name: string): Part =>
  bytes(1, message(bytes(1, name), bytes(2, ""), bytes(7, ""), bytes(8, []), int(7, 0)));

test("a Namespace as Go writes it becomes what JSON clients send", () => {
  const body = message(
    bytes(1, message(bytes(1, "q"), bytes(2, ""), bytes(3, ""), bytes(8, []))),
    bytes(2, []),
    bytes(3, message(bytes(1, ""))),
  );
  const value = decodeProtobuf(envelope("v1", "Namespace", body));
  const { object } = decodeObject("io.k8s.api.core.v1.Namespace", value);
  assert.deepEqual(object, {
    apiVersion: "v1",
    kind: "Namespace",
    metadata: { name: "q" },
    spec: {},
    status: {},
  });
});

test("maps, bytes, embedded messages, quantities, times and int-or-strings get their JSON form", () => {
  const secret = message(
    bytes(1, bytes(1, "s")),
    bytes(2, message(bytes(1, "k"), bytes(2, [0xff, 0x00]))),
    bytes(3, "Opaque"),
  );
  assert.deepEqual(decodeProtobuf(envelope("v1", "Secret", secret)), {
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: "s" },
    data: { k: "/wA=" },
    type: "Opaque",
  });
  const port = message(int(3, 80), bytes(4, message(int(1, 1), int(2, 0), bytes(3, "http"))));
  const service = message(bytes(1, bytes(1, "w")), bytes(2, bytes(1, port)));
  assert.deepEqual(decodeProtobuf(envelope("v1", "Service", service)), {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "w" },
    spec: { ports: [{ port: 80, targetPort: "http" }] },
  });
  const limits = bytes(1, message(bytes(1, "cpu"), bytes(2, bytes(1, "500m"))));
  const container = message(bytes(1, "c"), bytes(8, limits));
  // Volume embeds VolumeSource: JSON has `emptyDir` beside `name`.
  const volume = message(bytes(1, "v"), bytes(2, bytes(2, bytes(1, "Memory"))));
  const pod = message(
    bytes(1, message(bytes(1, "p"), bytes(8, int(1, 1_700_000_000)))),
    bytes(2, message(bytes(1, volume), bytes(2, container))),
  );
  assert.deepEqual(decodeProtobuf(envelope("v1", "Pod", pod)), {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "p", creationTimestamp: "2023-11-14T22:13:20Z" },
    spec: {
      volumes: [{ name: "v", emptyDir: { medium: "Memory" } }],
      containers: [{ name: "c", resources: { limits: { cpu: "500m" } } }],
    },
  });
});

test("fields of a newer client are skipped", () => {
  const body = message(meta("q"), int(900, 5), bytes(901, "x"), [
    ...varint((902 << 3) | 1),
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
  ]);
  const { object } = decodeObject(
    "io.k8s.api.core.v1.ConfigMap",
    decodeProtobuf(envelope("v1", "ConfigMap", body)),
  );
  assert.deepEqual(object["metadata"], { name: "q" });
});

test("an unknown kind is refused", () => {
  assert.throws(
    () => decodeProtobuf(envelope("v1", "Unicorn", [])),
    /no kind "Unicorn" is registered for version "v1"/,
  );
  assert.ok(!isProtobuf(Buffer.from("{}")));
});

test("no input makes the decoder do anything but decode or refuse", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (body) => {
      const input = envelope("v1", "Pod", [...body]);
      try {
        decodeProtobuf(input);
      } catch (error) {
        assert.ok(error instanceof RangeError || error instanceof SyntaxError, String(error));
      }
    }),
    { numRuns: 500 },
  );
});
