import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import { cleanUp, demoMark, findNamespace, leftOver } from "../../../../src/agent/demo/clean-up.ts";
import type { ClusterTool } from "../../../../src/agent/demo/cluster-tool.ts";
import type { DemoEngine } from "../../../../src/agent/demo/engine.ts";
import { NAMESPACES, PODS } from "../../../../src/api/resources.ts";
import { systemClock } from "../../../../src/lib/clock.ts";
import { type FakeApiServer, startFakeApiServer } from "../../../fakes/api-server.ts";

const { signal } = new AbortController();
const namespace = "shop-demo";

function tool(over: Partial<ClusterTool>): ClusterTool {
  const nothing = (): Promise<void> => Promise.resolve();
  return {
    name: "fake",
    create: nothing,
    delete: nothing,
    createNamespace: nothing,
    deleteNamespace: nothing,
    deletePod: nothing,
    scale: nothing,
    setImage: nothing,
    rolloutUndo: nothing,
    openSession: () => Promise.reject(new Error("no sessions here")),
    ...over,
  };
}

function engine(images: Set<string>, used: ReadonlySet<string> = new Set()): DemoEngine {
  return {
    build: () => Promise.resolve(),
    imageSize: (tag) => Promise.resolve(images.has(tag) ? 1 : undefined),
    removeImage: (tag) => {
      if (used.has(tag)) return Promise.resolve(false);
      images.delete(tag);
      return Promise.resolve(true);
    },
    containers: () => Promise.resolve([]),
    kill: () => Promise.resolve(),
  };
}

async function withServer(body: (server: FakeApiServer, file: string) => Promise<void>) {
  const dir = await mkdtemp(join(tmpdir(), "demo-clean-"));
  const server = await startFakeApiServer();
  try {
    await writeFile(join(dir, "shop.yaml"), "");
    await body(server, join(dir, "shop.yaml"));
  } finally {
    await server.close();
    await rm(dir, { recursive: true, force: true });
  }
}

const mine = { metadata: { name: namespace, labels: demoMark } };

describe("the demo's clean-up", () => {
  test("removes what is there, goes on behind a step that fails, and looks again", () =>
    withServer(async (server, manifest) => {
      server.put(NAMESPACES, mine);
      server.put(PODS, { metadata: { name: "stuck", namespace } });
      const images = new Set(["shop:v1", "shop:v2", "mine:1"]);
      const problems: string[] = [];
      const left = await cleanUp(
        {
          tool: tool({
            delete: () => Promise.reject(new Error("delete failed")),
            deleteNamespace: () => {
              server.remove(NAMESPACES, namespace);
              return Promise.resolve();
            },
          }),
          client: server.client,
          engine: engine(images, new Set(["shop:v2"])),
          clock: systemClock,
          namespace,
          manifest,
          images: ["shop:v1", "shop:v2"],
        },
        (problem) => problems.push(problem),
        signal,
      );
      assert.deepEqual(problems, ["delete failed", "shop:v2 is in use; it stays"]);
      assert.deepEqual(left, ["pods/stuck", "image shop:v2"], "as cluster and engine say");
      assert.deepEqual([...images], ["shop:v2", "mine:1"], "other images are none of its business");
    }));

  test("a namespace of somebody else is neither ours nor touched", () =>
    withServer(async (server, manifest) => {
      server.put(NAMESPACES, { metadata: { name: namespace } });
      assert.equal(await findNamespace(server.client, namespace, signal), "foreign");
      const leftovers = {
        tool: tool({
          delete: () => assert.fail("deleted"),
          deleteNamespace: () => assert.fail("deleted"),
        }),
        client: server.client,
        engine: engine(new Set()),
        clock: systemClock,
        namespace,
        manifest,
        images: [],
      };
      const left = await cleanUp(leftovers, (problem) => assert.fail(problem), signal);
      assert.deepEqual(left, [`namespace/${namespace}`]);
      server.remove(NAMESPACES, namespace);
      assert.equal(await findNamespace(server.client, namespace, signal), "none");
      server.put(NAMESPACES, mine);
      assert.equal(await findNamespace(server.client, namespace, signal), "ours");
      assert.deepEqual(await leftOver(leftovers, signal), [`namespace/${namespace}`]);
    }));
});
