import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import {
  devicePathPattern,
  formatRecord,
  interfaceSettings,
  iscsiDisk,
  type IscsiDisk,
  parseRecord,
  sharedName,
  sharedNameOf,
  transportOf,
} from "../../../src/kubelet/volumes/iscsi/disk.ts";
import { chapSettings, withSettings } from "../../../src/kubelet/volumes/iscsi/records.ts";
import {
  joinMountOptions,
  missingFlags,
  mountOptions,
} from "../../../src/kubelet/volumes/mount-options.ts";

const source = { targetPortal: "10.0.0.1", iqn: "iqn.2026-01.example:a", lun: 3 };

function disk(more: object = {}): IscsiDisk {
  const volume = { name: "data", iscsi: { ...source, ...more } };
  const found = iscsiDisk({ name: "data", volume, readOnly: false }, "ns");
  assert(found !== undefined);
  return found.disk;
}

describe("an iSCSI disk", () => {
  test("has portals with ports, each once, and an interface of its own for its own initiator", () => {
    const portals = ["10.0.0.2:860", "[fd00::1]", "10.0.0.1:3260"];
    const found = disk({ portals, initiatorName: "iqn.2026-01.example:node" });
    assert.deepEqual(found.portals, ["10.0.0.1:3260", "10.0.0.2:860", "[fd00::1]:3260"]);
    assert.equal(found.iface, "10.0.0.1:3260:data");
    assert.equal(disk().iface, "default");
    assert.equal(sharedName(disk()), "iface-default/10.0.0.1:3260-iqn.2026-01.example:a-lun-3");
  });

  test("has a record from which it is read again; what is none is none", () => {
    const found = disk({ portals: ["10.0.0.2"], initiatorName: "iqn.2026-01.example:node" });
    assert.deepEqual(parseRecord(formatRecord(found)), found);
    for (const text of ["", "{", "[]", "{}", '{"Portals":[],"Iqn":"x","Lun":"0"}']) {
      assert.equal(parseRecord(text), undefined);
    }
  });

  test("is recognised on disk by its name in the status of nodes, with or without a port", () => {
    const portal = fc.tuple(
      fc.constantFrom("10.0.0.1", "[fd00::1]", "files.example"),
      fc.constantFrom("", ":3260", ":860"),
    );
    const iqn = fc.stringMatching(/^(iqn\.2026-01\.[a-z]+|eui\.[0-9A-F]{16})(:[a-z0-9:.-]+)?$/);
    fc.assert(
      fc.property(portal, iqn, fc.nat(255), ([address, port], target, lun) => {
        const source = { targetPortal: `${address}${port}`, iqn: target, lun };
        const spec = {
          name: "data",
          volume: { name: "data" },
          persistent: { claim: {}, volume: { metadata: { name: "pv" }, spec: { iscsi: source } } },
          readOnly: false,
        };
        const found = iscsiDisk(spec, "ns")?.disk;
        assert(found?.uniqueName !== undefined);
        assert.equal(sharedNameOf(found.uniqueName), sharedName(found).split("/").at(-1));
      }),
    );
    assert.equal(sharedNameOf("kubernetes.io/csi/driver^handle"), undefined);
  });

  test("is found below /dev by portal, target and LUN, and no other is", () => {
    const tcp = devicePathPattern("[fd00::1]:3260", disk(), "tcp");
    const name = "ip-fd00::1:3260-iscsi-iqn.2026-01.example:a-lun-3";
    assert(tcp.test(name));
    assert(!tcp.test(`${name}1`) && !tcp.test(name.replace(".2026", "x2026")));
    const card = devicePathPattern("[fd00::1]:3260", disk(), "be2iscsi");
    assert(card.test(`pci-0000:03:00.1-${name}`) && !card.test(name));
  });

  test("reads what iscsiadm shows of an interface", () => {
    const shown =
      "# BEGIN RECORD 2.1.8\niface.iscsi_ifacename = default\niface.transport_name = <empty>\niface.mtu = 0\niface.initiatorname = <empty>\n# END RECORD\n";
    assert.deepEqual([...interfaceSettings(shown)], [["iface.mtu", "0"]]);
    assert.equal(transportOf(shown), "tcp");
    assert.equal(transportOf("iface.transport_name = bnx2i\n"), "bnx2i");
    assert.equal(transportOf("nothing"), undefined);
  });
});

describe("records of open-iscsi", () => {
  test("get settings before their end, in the place of those of the same name", () => {
    const record =
      "# BEGIN RECORD\nnode.name = a\nnode.session.auth.password = old\nnode.x = 1\n# END RECORD\n";
    const settings = new Map([["node.session.auth.password", "a = b"]]);
    assert.equal(
      withSettings(record, settings),
      "# BEGIN RECORD\nnode.name = a\nnode.x = 1\nnode.session.auth.password = a = b\n# END RECORD\n",
    );
    assert.equal(withSettings("", new Map([["a", "1"]])), "a = 1\n");
  });

  test("take no credentials that would be further settings", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (value) => {
        const secret = { "node.session.auth.password": value };
        let settings: ReadonlyMap<string, string>;
        try {
          settings = chapSettings(["node.session.auth.password"], secret);
        } catch {
          assert.match(value, /[\n\r\0]/);
          return;
        }
        const before = "# BEGIN RECORD\nnode.startup = manual\n# END RECORD\n";
        const lines = withSettings(before, settings).split("\n");
        assert.equal(lines.length, before.split("\n").length + settings.size);
      }),
    );
  });
});

describe("mount options", () => {
  test("are those of the annotation, before those of the spec", () => {
    const behind = (annotations: Record<string, string>): readonly string[] =>
      mountOptions({
        persistent: {
          claim: {},
          volume: { metadata: { annotations }, spec: { mountOptions: ["hard"] } },
        },
      });
    assert.deepEqual(behind({}), ["hard"]);
    assert.deepEqual(behind({ "volume.beta.kubernetes.io/mount-options": "soft,ro" }), [
      "soft",
      "ro",
    ]);
    assert.deepEqual(mountOptions({}), []);
  });

  test("are given once each, and flags of a mount that it has already are not asked for", () => {
    assert.deepEqual(joinMountOptions(["b", "a"], ["a", "ro"]), ["a", "b", "ro"]);
    assert.deepEqual(missingFlags(["ro", "nosuid", "hard"], ["rw", "nosuid"]), ["ro"]);
  });
});
