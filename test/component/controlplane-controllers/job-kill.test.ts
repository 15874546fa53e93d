import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import type { ApiClient } from "../../../src/api/client.ts";
import { createHttpClient } from "../../../src/api/http-client.ts";
import { loadKubeconfig } from "../../../src/api/kubeconfig.ts";
import { createObject, getObject, listObjects, patchObject } from "../../../src/api/objects.ts";
import { JOBS, PODS } from "../../../src/api/resources.ts";
import type { Job } from "../../../src/api/types.gen.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { eventually } from "./world.ts";

const program = fileURLToPath(new URL("./serve.ts", import.meta.url));
const namespace = "default";
const kills = 5;
const completions = 60;

async function serve(directory: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, [program, directory], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise((resolve, reject) => {
    child.stdout?.once("data", resolve);
    child.once("exit", (code) => reject(new Error(`the control plane ended with ${code}`)));
  });
  return child;
}

async function connect(directory: string): Promise<ReturnType<typeof createHttpClient>> {
  return createHttpClient({
    kubeconfig: await loadKubeconfig(join(directory, "admin.conf")),
    userAgent: "test",
    clock: systemClock,
    logger: silentLogger,
  });
}

/** A Job whose pods need no scheduler: they name a node, and this test plays its kubelet. */
function job(name: string, completionMode: "Indexed" | "NonIndexed"): Job {
  return {
    metadata: { namespace, name },
    spec: {
      completions,
      parallelism: 6,
      completionMode,
      template: {
        spec: {
          nodeName: "n1",
          restartPolicy: "Never",
          containers: [{ name: "c", image: "i" }],
        },
      },
    },
  };
}

/** Ends every pod that has not ended, until the server is gone. Returns how many it ended. */
async function endPods(client: ApiClient, wanted: number, signal: AbortSignal): Promise<number> {
  let ended = 0;
  while (ended < wanted) {
    const { items } = await listObjects(client, PODS, { namespace, signal });
    const pending = items.filter(({ status }) => status?.phase === "Pending");
    for (const { metadata } of pending) {
      const change = { namespace, name: metadata.name, patch: { status: { phase: "Succeeded" } } };
      await patchObject(client, PODS, change, { subresource: "status", signal });
      ended += 1;
    }
    if (pending.length === 0) await systemClock.sleep(2, signal);
  }
  return ended;
}

test("kill -9 while a Job runs: each success is counted once, and no pod is made twice", async () => {
  const directory = await mkdtemp(join(tmpdir(), "remora-job-kill-"));
  let child = await serve(directory);
  try {
    let client = await connect(directory);
    let signal = AbortSignal.timeout(60_000);
    for (const object of [job("plain", "NonIndexed"), job("indexed", "Indexed")])
      await createObject(client, JOBS, object, { signal });
    for (let round = 0; round < kills; round += 1) {
      // Each time somewhere else in the controller's work: the kill is not awaited by what goes on.
      await endPods(client, 7 + round * 3, signal);
      const exited = once(child, "exit");
      child.kill("SIGKILL");
      await exited;
      await client.close();
      child = await serve(directory);
      client = await connect(directory);
      signal = AbortSignal.timeout(60_000);
    }
    const player = new AbortController();
    const playing = endPods(client, Infinity, player.signal).catch(() => undefined);
    for (const name of ["plain", "indexed"]) {
      const done = await eventually(
        `${name} is complete`,
        async () => {
          const found = await getObject(client, JOBS, { namespace, name }, { signal });
          const complete = found.status?.conditions?.some(({ type }) => type === "Complete");
          return complete === true ? found : undefined;
        },
        30_000,
      );
      assert.equal(done.status?.succeeded, completions);
      assert.equal(done.status?.failed, undefined);
      const labelSelector = `job-name=${name}`;
      const { items } = await listObjects(client, PODS, { namespace, labelSelector, signal });
      assert.equal(items.length, completions);
      assert.deepEqual(
        items.flatMap(({ metadata }) => metadata.finalizers ?? []),
        [],
      );
    }
    player.abort();
    await playing;
    await client.close();
  } finally {
    child.kill("SIGKILL");
    await rm(directory, { recursive: true, force: true });
  }
});
