import assert from "node:assert/strict";
import { cp, mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, test } from "node:test";

import type { Pod } from "../../../src/api/types.gen.ts";
import { claimStateDirectory, readMarker } from "../../../src/agent/ledger/state-marker.ts";
import { readPlaces } from "../../../src/agent/places.ts";
import { openStore } from "../../../src/controlplane/store/open-store.ts";
import type { Store } from "../../../src/controlplane/store/store.ts";
import { computeActions } from "../../../src/kubelet/pods/compute-actions.ts";
import { computeStatus } from "../../../src/kubelet/status/compute-status.ts";
import type { ObservedPod } from "../../../src/kubelet/status/observed.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { Leases } from "../../../src/network/leases.ts";
import { ownership } from "../../../src/runtime/docker/labels.ts";
import { parseInspected, parseListed, podRecords } from "../../../src/runtime/docker/records.ts";
import { temporaryDirectory } from "../ledger/temporary-directory.ts";

/**
 * What a version before markers and ledgers left on a machine: its store, its containers as the engine tells of them, and
 * the agent's files. Two pods of a Deployment and one of its own ran.
 */
const earlier = new URL("../../fixtures/earlier-state/", import.meta.url).pathname;

interface Recorded {
  readonly list: { readonly Created: number };
  readonly inspect: object;
}

async function recorded(): Promise<readonly Recorded[]> {
  return JSON.parse(await readFile(join(earlier, "containers.json"), "utf8")) as Recorded[];
}

interface Cleanup {
  after(work: () => void | Promise<void>): void;
}

async function stateOf(t: Cleanup): Promise<{ directory: string; store: Store }> {
  const directory = join(await temporaryDirectory(t), "state");
  await mkdir(join(directory, "control-plane"), { recursive: true });
  await cp(join(earlier, "kubelet"), join(directory, "kubelet"), { recursive: true });
  const path = join(directory, "control-plane/store.db");
  const database = new DatabaseSync(path);
  database.exec(await readFile(join(earlier, "store.sql"), "utf8"));
  database.close();
  const store = openStore({
    path,
    ephemeralPath: join(directory, "control-plane/ephemeral.db"),
    isEphemeral: (resource) => resource.includes("leases"),
    now: () => 0,
    historySize: 16,
  });
  t.after(() => {
    store.close();
  });
  return { directory, store };
}

function pods(store: Store): readonly AssignedPod[] {
  return [...store.list("pods")] as unknown as readonly (Pod & AssignedPod)[];
}

describe("what an earlier version left", () => {
  test("is a state directory of ours, and gets its marker", async (t) => {
    const { directory } = await stateOf(t);
    await claimStateDirectory(directory, { mode: "up", nodeName: "node1", version: "7", now: 0 });
    assert.equal((await readMarker(directory))?.createdBy, "7");
    const places = await readPlaces(join(directory, "kubelet"));
    assert.equal(places.nodeName, "node1");
    assert.equal(places.dockerSocket, "/var/run/docker.sock");
  });

  test("is a store with all of its objects and its revision", async (t) => {
    const { store } = await stateOf(t);
    assert.deepEqual(
      pods(store).map(({ metadata }) => metadata.name.replace(/^web-.*/, "web")),
      ["lone", "web", "web"],
    );
    const newest = Math.max(...pods(store).map(({ metadata }) => Number(metadata.resourceVersion)));
    assert.ok(store.currentRevision >= newest);
    const spec: unknown = store.get("nodes", "", "node1")?.["spec"];
    assert.partialDeepStrictEqual(spec, { podCIDRs: ["10.244.0.0/24"] });
  });

  test("are containers that are ours, belong to the pods of the store, and need nothing", async (t) => {
    const { directory, store } = await stateOf(t);
    const observed = (await recorded()).map(({ list, inspect }) => ({
      listed: parseListed(list),
      inspected: parseInspected(inspect),
    }));
    const owner = { nodeName: "node1", scope: "" };
    const own = observed.filter(({ listed }) => ownership(listed.labels, owner) === "ours");
    assert.equal(own.length, 7);
    const leases = new Leases({
      directory: join(directory, "kubelet/network/ipam"),
      logger: silentLogger,
    });
    await leases.load();
    const records = podRecords(own);
    for (const pod of pods(store)) {
      const record = records.get(pod.metadata.uid);
      assert.ok(record !== undefined, pod.metadata.name);
      const [sandbox] = record.sandboxes;
      const ips = leases.get(sandbox?.id ?? "")?.ips;
      assert.deepEqual(
        ips,
        pod.status?.podIPs?.map(({ ip }) => ip),
      );
      const now = Date.parse(pod.metadata.creationTimestamp ?? "") + 60_000;
      const view: ObservedPod = {
        record,
        addresses: (id) => leases.get(id)?.ips,
        hostIPs: [pod.status?.hostIP ?? ""],
        probes: { startup: () => undefined, readiness: () => true, liveness: () => undefined },
        starting: new Set(),
        now,
      };
      const status = computeStatus({
        pod,
        observed: view,
        waiting: new Map(),
        messages: new Map(),
        imageRefs: new Map(),
        terminating: false,
        old: pod.status ?? {},
        verdict: undefined,
        seenAt: now,
      });
      assert.deepEqual(computeActions({ pod, observed: view, status }), [], pod.metadata.name);
      assert.equal(status.phase, "Running");
      const told = pod.status?.containerStatuses ?? [];
      for (const { name, containerID, restartCount, state } of status.containerStatuses ?? []) {
        const before = told.find((each) => each.name === name);
        assert.deepEqual(
          { containerID, restartCount, state },
          {
            containerID: before?.containerID,
            restartCount: before?.restartCount,
            state: before?.state,
          },
        );
      }
    }
  });

  test("of a later version are neither ours nor nobody's", async () => {
    const [first] = await recorded();
    assert.ok(first !== undefined);
    const { labels } = parseListed(first.list);
    const owner = { nodeName: "node1", scope: "" };
    assert.equal(ownership({ ...labels, "remora.io/schema": "99" }, owner), "newer");
  });
});
