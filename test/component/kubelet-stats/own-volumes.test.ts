import assert from "node:assert/strict";
import { test } from "node:test";

import { claimMetrics } from "../../../src/kubelet/stats/claim-metrics.ts";
import { OwnVolumes } from "../../../src/kubelet/stats/own-volumes.ts";
import type { PodVolume, VolumeFigures } from "../../../src/kubelet/types.ts";
import { renderMetrics } from "../../../src/lib/metrics-text.ts";
import { bench, neverAborted, uid } from "./fixture.ts";

const figures: VolumeFigures = {
  capacityBytes: 100,
  availableBytes: 60,
  usedBytes: 30,
  inodes: { total: 10, free: 7, used: 3 },
};

function volume(path: string, ask: PodVolume["figures"]): PodVolume {
  return { name: path.slice(1), claim: "data", path, figures: ask };
}

interface World {
  now: number;
  readonly warnings: string[];
  readonly own: OwnVolumes;
}

function world(volumes: () => readonly PodVolume[]): World {
  const made: World = {
    now: 0,
    warnings: [],
    own: new OwnVolumes({
      volumes,
      clock: { now: () => made.now, monotonic: () => made.now, sleep: async () => undefined },
      logger: {
        log: (level, message) => void (level === "warn" && made.warnings.push(message)),
      } as ConstructorParameters<typeof OwnVolumes>[0]["logger"],
    }),
  };
  return made;
}

test("a volume that hangs keeps no other from being shown, and is not asked again meanwhile", async () => {
  let hangs = 0;
  const hung = volume("/hung", async () => {
    hangs += 1;
    return new Promise(() => undefined);
  });
  const { own } = world(() => [hung, volume("/well", async () => figures)]);
  void own.refresh(["a"]);
  await new Promise(setImmediate);
  void own.refresh(["a"]);
  assert.deepEqual(
    own.of("a").map(({ name }) => name),
    ["well"],
  );
  assert.equal(hangs, 1);
});

test("a volume is asked once a minute; one that fails less and less often, and its last figures stay", async () => {
  let asked = 0;
  let broken = false;
  const node = world(() => [
    volume("/v", async () => {
      asked += 1;
      if (broken) throw new Error("no answer");
      return figures;
    }),
  ]);
  const { own } = node;
  await own.refresh(["a"]);
  await own.refresh(["a"]);
  assert.equal(asked, 1);
  broken = true;
  const times: number[] = [];
  for (node.now = 0; node.now < 1_000_000; node.now += 10_000) {
    const before = asked;
    await own.refresh(["a"]);
    if (asked > before) times.push(node.now / 1000);
  }
  assert.deepEqual(times, [60, 120, 240, 480, 960]);
  assert.deepEqual(node.warnings, ["volume cannot be asked how full it is"]);
  assert.equal(own.of("a")[0]?.timeMs, 0);
});

test("what is gone is forgotten", async () => {
  let volumes: readonly PodVolume[] = [volume("/v", async () => figures)];
  const { own } = world(() => volumes);
  await own.refresh(["a"]);
  const [known] = volumes;
  volumes = [];
  await own.refresh(["a"]);
  volumes = known === undefined ? [] : [known];
  assert.deepEqual(own.of("a"), []);
});

test("the summary has volumes with room of their own beside those on the node, with their claims", async () => {
  const block = { ...volume("/block", async () => ({ capacityBytes: 5 })), claim: undefined };
  const node = bench(2, {
    volumes: (pod) => (pod === uid ? [volume("/v", async () => figures), block] : []),
  });
  const { pods } = await node.statistics.summary(false, neverAborted);
  const shown = pods[0]?.volume?.slice(-2).map(({ time: _time, ...rest }) => rest);
  assert.deepEqual(shown, [
    {
      capacityBytes: 100,
      availableBytes: 60,
      usedBytes: 30,
      inodesFree: 7,
      inodes: 10,
      inodesUsed: 3,
      name: "v",
      pvcRef: { name: "data", namespace: pods[0]?.podRef.namespace },
    },
    { capacityBytes: 5, name: "block" },
  ]);
  const claims = node.statistics.claims();
  assert.deepEqual(
    claims.map(({ claim }) => claim),
    ["data"],
  );
  const text = renderMetrics(claimMetrics([...claims, ...claims]));
  const line = 'kubelet_volume_stats_used_bytes{namespace="ns",persistentvolumeclaim="data"} 30';
  assert.equal(text.split("\n").filter((each) => each === line).length, 1);
});
