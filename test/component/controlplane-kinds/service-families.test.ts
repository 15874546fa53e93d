import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, describe, it } from "node:test";

import { isRecord, type JsonRecord } from "../../../src/lib/guard.ts";
import { errorMessage } from "../../../src/lib/errors.ts";
import { startServer } from "./server.ts";

interface Step {
  readonly verb: "create" | "put" | "merge";
  readonly spec: JsonRecord;
  /** What a kube-apiserver 1.36 of the same two ranges answers, addresses as V4 and V6. */
  readonly result: unknown;
}

const file = new URL("../../fixtures/service-families.json", import.meta.url);
const scenarios = JSON.parse(readFileSync(file, "utf8")) as readonly (readonly Step[])[];
const path = "/api/v1/namespaces/default/services";

function family(ip: unknown): unknown {
  if (typeof ip !== "string" || ip === "None" || ip === "") return ip;
  return ip.includes(":") ? "V6" : "V4";
}

/** Without what a server is free to choose. */
function shape(service: JsonRecord): unknown {
  const { type, clusterIP, clusterIPs, ipFamilies, ipFamilyPolicy } = isRecord(service["spec"])
    ? service["spec"]
    : {};
  const ips = Array.isArray(clusterIPs) ? clusterIPs.map((ip) => family(ip)) : undefined;
  const all = { type, ip: family(clusterIP), ips, families: ipFamilies, policy: ipFamilyPolicy };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

function reason(error: unknown): string {
  return errorMessage(error)
    .replace(/.*? is invalid: /, "")
    .replaceAll(/10\.96\.\d+\.\d+/g, "V4")
    .replaceAll(/fd00:96::[0-9a-f]+/g, "V6");
}

describe("families of Services in a cluster with two", async () => {
  const server = startServer(["10.96.0.0/16", "fd00:96::/112"]);
  after(() => server.close());
  const { client } = server;
  const { signal } = new AbortController();
  const namespace = { apiVersion: "v1", kind: "Namespace", metadata: { name: "default" } };
  await client.request({ method: "POST", path: "/api/v1/namespaces", body: namespace, signal });

  for (const [number, steps] of scenarios.entries()) {
    const title = steps.map(({ verb, spec }) => `${verb} ${JSON.stringify(spec)}`).join(", ");
    it(title, async () => {
      const name = `s${number}`;
      const at = `${path}/${name}`;
      let metadata: unknown = { name };
      for (const { verb, spec, result } of steps) {
        const body = { apiVersion: "v1", kind: "Service", metadata, spec };
        const contentType = "application/merge-patch+json";
        const requests = {
          create: { method: "POST", path, body, signal },
          put: { method: "PUT", path: at, body, signal },
          merge: { method: "PATCH", path: at, body: { spec }, contentType, signal },
        } as const;
        let answer: unknown;
        try {
          const service = await client.request(requests[verb]);
          assert.ok(isRecord(service));
          metadata = service["metadata"];
          answer = shape(service);
        } catch (error) {
          answer = reason(error);
        }
        assert.deepEqual(answer, result, verb);
      }
      await client.request({ method: "DELETE", path: at, signal }).catch(() => undefined);
    });
  }

  it("gives back what it took: a small range can be used for ever", async () => {
    const small = startServer(["10.96.0.0/29", "fd00:96::/125"]);
    try {
      await small.client.request({
        method: "POST",
        path: "/api/v1/namespaces",
        body: namespace,
        signal,
      });
      for (let turn = 0; turn < 30; turn += 1) {
        const spec = { ports: [{ port: 80 }], ipFamilyPolicy: "RequireDualStack" };
        const body = { apiVersion: "v1", kind: "Service", metadata: { name: "a" }, spec };
        await small.client.request({ method: "POST", path, body, signal });
        const patch = (ipFamilyPolicy: string): Promise<unknown> =>
          small.client.request({
            method: "PATCH",
            path: `${path}/a`,
            body: { spec: { ipFamilyPolicy } },
            contentType: "application/merge-patch+json",
            signal,
          });
        await patch("SingleStack");
        await patch("PreferDualStack");
        await small.client.request({ method: "DELETE", path: `${path}/a`, signal });
      }
    } finally {
      small.close();
    }
  });
});
