import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { readPlaces, recordPlaces } from "../../../src/agent/places.ts";
import { agentConfig } from "../../../src/config/agent-config.ts";

test("what an agent wrote down about its places is read again", async () => {
  const rootDir = await mkdtemp(join(tmpdir(), "remora-places-"));
  try {
    const config = agentConfig({
      nodeName: "cellar",
      kubeconfig: "/k",
      proxyKubeconfig: "/p",
      rootDir: join(rootDir, "new"),
      podLogsDir: "/logs",
      cgroupRoot: "/pods",
      certDir: "/certs",
    });
    await recordPlaces(config);
    assert.deepEqual(await readPlaces(config.rootDir), {
      nodeName: "cellar",
      dockerSocket: "/var/run/docker.sock",
      podLogsDir: "/logs",
      containerLogsDir: "/var/log/containers",
      cgroupRoot: "/pods",
      certDir: "/certs",
    });
  } finally {
    await rm(rootDir, { recursive: true, force: true });
  }
});

test("without a good note the usual places are meant, and no name", async () => {
  const rootDir = await mkdtemp(join(tmpdir(), "remora-places-"));
  const usual = {
    podLogsDir: "/var/log/pods",
    containerLogsDir: "/var/log/containers",
    cgroupRoot: "/",
  };
  try {
    assert.deepEqual(await readPlaces(rootDir), usual);
    for (const text of ["{", "[]", '{"podLogsDir": 3}']) {
      await writeFile(join(rootDir, "places.json"), text);
      assert.deepEqual(await readPlaces(rootDir), usual);
    }
  } finally {
    await rm(rootDir, { recursive: true, force: true });
  }
});
