import assert from "node:assert/strict";
import { describe, it } from "node:test";

import {
  attachmentName,
  csiPaths,
  inlineHandle,
  parseVolumeName,
  uniqueVolumeName,
} from "../../../src/kubelet/csi/paths.ts";

const id = { driver: "ebs.csi.aws.com", handle: "vol-0123" };

describe("names of CSI volumes", () => {
  // sha256sum of the words one after the other.
  it("are those that controllers and drivers compute too", () => {
    assert.equal(uniqueVolumeName(id), "kubernetes.io/csi/ebs.csi.aws.com^vol-0123");
    assert.equal(
      attachmentName(id, "node-1"),
      "csi-07ecfc852da5dfbbd7b01cdb93df1864837f37ce73ed4e3cb83ccc4a0168a004",
    );
    assert.equal(
      inlineHandle("uid", "scratch"),
      "csi-6d06c0145d28c8978bc37cc633f4bf7e31eedfc72dead36b761e26d174ec1ad6",
    );
  });

  it("can be read back, whatever a handle holds", () => {
    const odd = { driver: "d.example", handle: "a^b/c^d" };
    assert.deepEqual(parseVolumeName(uniqueVolumeName(odd)), odd);
    assert.equal(parseVolumeName("kubernetes.io/nfs/server"), undefined);
    assert.equal(parseVolumeName("kubernetes.io/csi/no-handle"), undefined);
  });
});

describe("paths of CSI volumes", () => {
  const paths = csiPaths("/var/lib/kubelet");

  it("are where drivers and their tools expect them", () => {
    assert.equal(
      paths.stagingTarget(id),
      "/var/lib/kubelet/plugins/kubernetes.io/csi/ebs.csi.aws.com/f1dcc41f8f47bcb49d9e1cd26bd3aef8ebdac1e4cbe319cc4b4ac26bffe8f1e9/globalmount",
    );
    assert.equal(
      paths.blockPublishTarget("pv-1", "uid"),
      "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/publish/pv-1/uid",
    );
    assert.equal(
      paths.blockStaging("pv-1"),
      "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/staging/pv-1",
    );
    assert.equal(
      paths.blockData("pv-1"),
      "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/pv-1/data",
    );
  });

  for (const name of ["", ".", "..", "../../etc", "a/b", "a\0b"]) {
    it(`are not built with ${JSON.stringify(name)}`, () => {
      assert.throws(() => paths.staged({ driver: name, handle: "h" }));
      assert.throws(() => paths.blockStaging(name));
      assert.throws(() => paths.blockPublishTarget("pv", name));
    });
  }
});
