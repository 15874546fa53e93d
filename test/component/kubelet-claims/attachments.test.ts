import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";

import type { PersistentVolumeSpec } from "../../../src/api/types.gen.ts";
import type { DiskAttachments } from "../../../src/kubelet/volumes/disk-plugin.ts";
import { VolumesInUse } from "../../../src/kubelet/volumes/in-use.ts";
import { VolumeError } from "../../../src/kubelet/volumes/payload.ts";
import type { VolumePlugin } from "../../../src/kubelet/volumes/plugin.ts";
import { fibreChannelPlugin } from "../../../src/kubelet/volumes/plugins/fc.ts";
import { iscsiPlugin } from "../../../src/kubelet/volumes/plugins/iscsi.ts";
import {
  addDisk,
  inline,
  inPlace,
  persistent,
  type Place,
  pod,
  result,
  setUp,
  tearDown,
} from "./fixture.ts";
import { FakeInitiator } from "./initiator.ts";

const iqn = "iqn.2026-01.example:store";
const iscsi = { targetPortal: "10.0.0.1", iqn, lun: 1 };
const fc = { targetWWNs: ["500a0982"], lun: 3 };

/** The status of the node, and controllers that give it what they are told to. */
class NodeStatus implements DiskAttachments {
  readonly inUse: VolumesInUse;
  readonly attached = new Set<string>();
  readonly waited: string[] = [];

  constructor(inUse = new VolumesInUse()) {
    this.inUse = inUse;
  }

  hold(name: string, podUID: string): void {
    this.inUse.add(name, podUID);
  }

  async waitFor(name: string): Promise<void> {
    this.waited.push(name);
    assert(this.inUse.list([])?.includes(name));
    if (!this.attached.has(name)) {
      throw new VolumeError("Volume not attached according to node status");
    }
  }

  letGo(name: string, podUID: string, gone: boolean): void {
    this.inUse.release(name, podUID);
    if (gone) this.inUse.drop(name);
  }

  keepWhile(onDisk: (name: string) => boolean): void {
    this.inUse.keepWhile(onDisk);
  }
}

interface Kind {
  readonly name: string;
  readonly spec: PersistentVolumeSpec;
  readonly make: (place: Place) => (attachments: DiskAttachments) => VolumePlugin;
}

const kinds: readonly Kind[] = [
  {
    name: `kubernetes.io/iscsi/10.0.0.1:${iqn}:1`,
    spec: { iscsi },
    make: (place) => {
      const luns = new Map([[1, ["sdb"]]]);
      const { records } = new FakeInitiator(place, [{ iqn, portals: ["10.0.0.1:3260"], luns }]);
      return (attachments) =>
        iscsiPlugin({
          ...place.deps,
          attachments,
          records: [records],
          secret: async () => undefined,
        });
    },
  },
  {
    name: "kubernetes.io/fc/[500a0982]:3",
    spec: { fc },
    make: (place) => {
      addDisk(place, "sdb", "disk/by-path/fc-0x500a0982-lun-3");
      place.disks.scripts.push((argv) => (argv[0] === "sh" ? result(0) : undefined));
      return (attachments) => fibreChannelPlugin({ ...place.deps, attachments });
    },
  },
];

for (const { make, name, spec } of kinds) {
  for (const volumeMode of ["Filesystem", "Block"] as const) {
    const exclusive = { ...spec, volumeMode, accessModes: ["ReadWriteOnce" as const] };
    describe(`${name} (${volumeMode})`, () => {
      test("is touched only once the controllers gave it to this node", async () => {
        await inPlace(async (place) => {
          const plugin = make(place);
          const status = new NodeStatus();
          const wanted = persistent("pv-1", exclusive);
          const waiting = setUp(place, plugin(status), wanted);
          await assert.rejects(waiting, {
            message: "Volume not attached according to node status",
          });
          assert.deepEqual(place.mounts.entries, []);
          assert.deepEqual(place.disks.runs, []);
          assert.deepEqual(status.inUse.list([]), [name]);
          status.attached.add(name);
          await setUp(place, plugin(status), wanted);
          assert(place.mounts.entries.length > 0);
          await tearDown(place, plugin(status), wanted);
          assert.deepEqual(status.inUse.list([]), []);
        });
      });

      test("stays in use while another pod has it, and through a restart", async () => {
        await inPlace(async (place) => {
          const plugin = make(place);
          const first = new NodeStatus();
          first.attached.add(name);
          const wanted = persistent("pv-1", exclusive);
          await setUp(place, plugin(first), wanted, pod("a"));
          await setUp(place, plugin(first), wanted, pod("b"));
          await tearDown(place, plugin(first), wanted, "a");
          assert.deepEqual(first.inUse.list([name]), [name]);

          const second = new NodeStatus();
          const again = plugin(second);
          second.inUse.restore([]);
          const other = `${name}0`;
          assert.deepEqual(second.inUse.list([name, other]), [name]);
          // What is mounted is not waited for: it was attached when it was.
          await setUp(place, again, wanted, pod("b"));
          assert.deepEqual(second.waited, []);
          await tearDown(place, again, wanted, "b");
          assert.deepEqual(second.inUse.list([name]), []);
        });
      });
    });
  }

  test(`${name} is not waited for where several nodes may have it`, async () => {
    await inPlace(async (place) => {
      const status = new NodeStatus();
      const shared = persistent("pv-1", { ...spec, accessModes: ["ReadOnlyMany"] });
      await setUp(place, make(place)(status), shared);
      assert.deepEqual(status.waited, []);
      assert.deepEqual(status.inUse.list([]), [name]);
    });
  });
}

test("a volume of a pod itself has no part in it", async () => {
  await inPlace(async (place) => {
    const [kind] = kinds;
    assert(kind !== undefined);
    const status = new NodeStatus();
    await setUp(place, kind.make(place)(status), inline({ name: "data", iscsi }));
    assert.deepEqual(status.inUse.list([]), []);
    assert(existsSync(join(place.root, "plugins")));
    assert(readdirSync(place.dev).includes("sdb"));
  });
});
