import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { describe, test } from "node:test";

import { StatusError } from "../../../src/controlplane/status-error.ts";
import type { JsonObject } from "../../../src/controlplane/types.ts";
import { isRecord } from "../../../src/lib/guard.ts";
import { createCluster, now } from "./harness.ts";

/** One recorded create: what was sent, and what a 1.36 API server answered. */
interface GoldenCase {
  readonly name: string;
  readonly namespace: string;
  readonly input: JsonObject;
  readonly code: number;
  readonly output: JsonObject;
}

interface Golden {
  readonly resource: string;
  /** Name, type, format, priority. */
  readonly columns: readonly (readonly [string, string, string, number])[];
  readonly cases: readonly GoldenCase[];
}

const directory = new URL("../../fixtures/golden/", import.meta.url);

function readGolden(file: string): Golden {
  return JSON.parse(readFileSync(new URL(file, directory), "utf8")) as Golden;
}

/** Addresses and ports are given out by chance; a recording cannot know ours. */
function withoutAllocations(object: JsonObject): JsonObject {
  const copy = structuredClone(object);
  const spec = copy["spec"];
  if (!isRecord(spec) || copy["kind"] !== "Service") return copy;
  if (typeof spec["clusterIP"] === "string" && spec["clusterIP"] !== "None") {
    spec["clusterIP"] = "IP";
    spec["clusterIPs"] = ["IP"];
  }
  const ports = Array.isArray(spec["ports"]) ? spec["ports"].filter(isRecord) : [];
  for (const port of ports) if ("nodePort" in port) port["nodePort"] = "PORT";
  if ("healthCheckNodePort" in spec) spec["healthCheckNodePort"] = "PORT";
  return copy;
}

/** A recording leaves out what Go omits when it is empty. */
function normalized(object: JsonObject): JsonObject {
  const copy = withoutAllocations(object);
  const metadata = copy["metadata"];
  if (isRecord(metadata) && metadata["generation"] === undefined) delete metadata["generation"];
  return copy;
}

function assertAnswer(golden: Golden, { name, namespace, input, code, output }: GoldenCase): void {
  const cluster = createCluster();
  if (code < 400) {
    const created = cluster.create(golden.resource, namespace, input);
    assert.deepEqual(normalized(created), normalized(output), name);
    return;
  }
  assert.throws(
    () => cluster.create(golden.resource, namespace, input),
    (error) => {
      assert.ok(error instanceof StatusError, String(error));
      assert.equal(error.status, code);
      assert.equal(error.message, output["message"]);
      assert.equal(error.reason, output["reason"]);
      if (output["details"] !== undefined) {
        // Through JSON: absent and undefined members are the same on the wire.
        assert.deepEqual(JSON.parse(JSON.stringify(error.details)), output["details"]);
      }
      return true;
    },
  );
}

for (const file of readdirSync(directory).filter((name) => name.endsWith(".json"))) {
  const golden = readGolden(file);
  describe(`${golden.resource} answers as recorded`, () => {
    for (const example of golden.cases) {
      test(`create ${example.name} (${example.code})`, () => assertAnswer(golden, example));
    }

    test("the Table has the recorded columns", () => {
      const { columns } = createCluster().kind(golden.resource).table;
      assert.deepEqual(
        columns.map(({ name, type, format, priority }) => [name, type, format ?? "", priority]),
        golden.columns,
      );
    });

    test("a row has one cell per column, numbers where the column is a number", () => {
      const cluster = createCluster();
      const { table } = cluster.kind(golden.resource);
      for (const { namespace, input, code } of golden.cases) {
        if (code >= 400) continue;
        const row = table.row(cluster.create(golden.resource, namespace, input), now);
        assert.equal(row.length, table.columns.length);
        table.columns.forEach(({ type }, index) => {
          if (type === "integer") assert.equal(typeof row[index], "number");
          if (type === "boolean") assert.equal(typeof row[index], "boolean");
        });
      }
    });
  });
}
