import assert from "node:assert/strict";
import { describe, it } from "node:test";

import {
  NodeExpandVolumeRequest,
  NodeExpandVolumeResponse,
  NodeGetCapabilitiesResponse,
  NodeGetInfoResponse,
  NodeGetVolumeStatsRequest,
  NodeGetVolumeStatsResponse,
  NodePublishVolumeRequest,
  NodeStageVolumeRequest,
  NodeUnpublishVolumeRequest,
  NodeUnstageVolumeRequest,
} from "../../../src/kubelet/csi/messages.ts";
import type { MessageType } from "../../../src/lib/protobuf-message.ts";

const mount = {
  block: undefined,
  mount: { fsType: "ext4", mountFlags: ["noatime", "nodev"], volumeMountGroup: "2000" },
  accessMode: { mode: 7 },
};
const usage = { available: 2 ** 40, total: 2 ** 41, used: 5, unit: 1 };

function sample<T>(
  name: string,
  type: MessageType<T>,
  hex: string,
  value: T,
): readonly [string, MessageType<never>, string, unknown] {
  return [name, type as unknown as MessageType<never>, hex, value];
}

/** What the code that protoc generates from csi.proto for Go writes. */
const samples = [
  sample(
    "NodeStageVolumeRequest",
    NodeStageVolumeRequest,
    "0a05766f6c2d31120d0a0664657669636512037364621a062f737461676522221a020807121c0a046578743412076e6f6174696d6512056e6f6465761a04323030302a0f0a036b6579120873e282ac63726574320c0a0474696572120466617374",
    {
      volumeId: "vol-1",
      publishContext: { device: "sdb" },
      stagingTargetPath: "/stage",
      volumeCapability: mount,
      secrets: { key: "s€cret" },
      volumeContext: { tier: "fast" },
    },
  ),
  sample("NodeUnstageVolumeRequest", NodeUnstageVolumeRequest, "0a05766f6c2d3112062f7374616765", {
    volumeId: "vol-1",
    stagingTargetPath: "/stage",
  }),
  sample(
    "NodePublishVolumeRequest",
    NodePublishVolumeRequest,
    "0a05766f6c2d31120d0a0664657669636512037364621a062f737461676522072f7461726765742a061a0208010a0030013a080a036b657912017842090a05656d7074791200",
    {
      volumeId: "vol-1",
      publishContext: { device: "sdb" },
      stagingTargetPath: "/stage",
      targetPath: "/target",
      volumeCapability: { block: {}, mount: undefined, accessMode: { mode: 1 } },
      readonly: true,
      secrets: { key: "x" },
      volumeContext: { empty: "" },
    },
  ),
  sample(
    "NodeUnpublishVolumeRequest",
    NodeUnpublishVolumeRequest,
    "0a05766f6c2d3112072f746172676574",
    { volumeId: "vol-1", targetPath: "/target" },
  ),
  sample(
    "NodeGetVolumeStatsRequest",
    NodeGetVolumeStatsRequest,
    "0a05766f6c2d3112072f7461726765741a062f7374616765",
    { volumeId: "vol-1", volumePath: "/target", stagingTargetPath: "/stage" },
  ),
  sample(
    "NodeGetVolumeStatsResponse",
    NodeGetVolumeStatsResponse,
    "0a120880808080802010808080808040180520010a080801100218012002120808011204736c6f77",
    {
      usage: [usage, { available: 1, total: 2, used: 1, unit: 2 }],
      volumeCondition: { abnormal: true, message: "slow" },
    },
  ),
  sample(
    "NodeExpandVolumeRequest",
    NodeExpandVolumeRequest,
    "0a05766f6c2d3112072f7461726765741a070880808080806022062f73746167652a221a020807121c0a046578743412076e6f6174696d6512056e6f6465761a043230303032080a036b6579120178",
    {
      volumeId: "vol-1",
      volumePath: "/target",
      capacityRange: { requiredBytes: 3 * 2 ** 40, limitBytes: 0 },
      stagingTargetPath: "/stage",
      volumeCapability: mount,
      secrets: { key: "x" },
    },
  ),
  sample("NodeExpandVolumeResponse", NodeExpandVolumeResponse, "08808080808060", {
    capacityBytes: 3 * 2 ** 40,
  }),
  sample("NodeGetInfoResponse", NodeGetInfoResponse, "0a03692d3110271a0b0a090a047a6f6e65120161", {
    nodeId: "i-1",
    maxVolumesPerNode: 39,
    accessibleTopology: { segments: { zone: "a" } },
  }),
  sample("a negative number", NodeGetInfoResponse, "0a03692d3110ffffffffffffffffff01", {
    nodeId: "i-1",
    maxVolumesPerNode: -1,
    accessibleTopology: undefined,
  }),
  sample("NodeGetCapabilitiesResponse", NodeGetCapabilitiesResponse, "0a040a0208010a040a020806", {
    capabilities: [{ rpc: { type: 1 } }, { rpc: { type: 6 } }],
  }),
];

describe("a message of csi.v1", () => {
  for (const [name, type, hex, value] of samples) {
    it(`is read and written as protoc's code does: ${name}`, () => {
      assert.deepEqual(type.decode(Buffer.from(hex, "hex")), value);
      const written = type.encode(value as never);
      // The order of fields is free, and zeroes need not be written.
      assert.deepEqual(type.decode(written), value);
      const zero = "1200";
      const length = Buffer.from(hex, "hex").length - (hex.endsWith(zero) ? zero.length / 2 : 0);
      assert.equal(written.length, length);
    });
  }

  it("of a newer specification is read without what is new", () => {
    const future = Buffer.from("0a03692d31aa0603616263b0060a1027", "hex");
    assert.deepEqual(NodeGetInfoResponse.decode(future), {
      nodeId: "i-1",
      maxVolumesPerNode: 39,
      accessibleTopology: undefined,
    });
  });

  for (const hex of ["0a", "0a05766f", "0affffffffffffffffffff01", "0b"]) {
    it(`that is damaged is refused: ${hex}`, () => {
      assert.throws(() => NodeGetInfoResponse.decode(Buffer.from(hex, "hex")), RangeError);
    });
  }
});
