import {
  flag,
  type Given,
  integer,
  message,
  nested,
  nestedList,
  text,
  textMap,
  texts,
} from "../../lib/protobuf-message.ts";

/*
 * The part of csi.v1 (Container Storage Interface 1.12) and of pluginregistration.v1 that a node speaks. Tables and not
 * generated code: twenty messages of few fields each, and field numbers never change.
 */

type Inner<T> = Given<T> | undefined;

/** A message without fields. */
export const Empty = message<object>({});

export interface PluginInfo {
  /** `CSIPlugin`, `DevicePlugin`, `DRAPlugin`. */
  type: string;
  name: string;
  /** Socket of the plug-in itself; empty when it is the one that was asked. */
  endpoint: string;
  supportedVersions: readonly string[];
}
export const PluginInfo = message<PluginInfo>({
  type: text(1),
  name: text(2),
  endpoint: text(3),
  supportedVersions: texts(4),
});

export interface RegistrationStatus {
  pluginRegistered: boolean;
  error: string;
}
export const RegistrationStatus = message<RegistrationStatus>({
  pluginRegistered: flag(1),
  error: text(2),
});

export interface Topology {
  segments: Readonly<Record<string, string>>;
}
export const Topology = message<Topology>({ segments: textMap(1) });

export interface NodeGetInfoResponse {
  nodeId: string;
  /** 0: as many as the driver can. */
  maxVolumesPerNode: number;
  accessibleTopology: Inner<Topology>;
}
export const NodeGetInfoResponse = message<NodeGetInfoResponse>({
  nodeId: text(1),
  maxVolumesPerNode: integer(2),
  accessibleTopology: nested(3, Topology),
});

/** `NodeServiceCapability.RPC.Type`. */
export const capabilityTypes = {
  stageUnstageVolume: 1,
  getVolumeStats: 2,
  expandVolume: 3,
  volumeCondition: 4,
  singleNodeMultiWriter: 5,
  volumeMountGroup: 6,
} as const;

interface CapabilityRPC {
  type: number;
}
const CapabilityRPC = message<CapabilityRPC>({ type: integer(1) });

interface NodeServiceCapability {
  rpc: Inner<CapabilityRPC>;
}
const NodeServiceCapability = message<NodeServiceCapability>({ rpc: nested(1, CapabilityRPC) });

export interface NodeGetCapabilitiesResponse {
  capabilities: readonly Given<NodeServiceCapability>[];
}
export const NodeGetCapabilitiesResponse = message<NodeGetCapabilitiesResponse>({
  capabilities: nestedList(1, NodeServiceCapability),
});

/** `VolumeCapability.AccessMode.Mode`. */
export const accessModes = {
  unknown: 0,
  singleNodeWriter: 1,
  singleNodeReaderOnly: 2,
  multiNodeReaderOnly: 3,
  multiNodeSingleWriter: 4,
  multiNodeMultiWriter: 5,
  singleNodeSingleWriter: 6,
  singleNodeMultiWriter: 7,
} as const;

interface AccessMode {
  mode: number;
}
const AccessMode = message<AccessMode>({ mode: integer(1) });

export interface MountCapability {
  fsType: string;
  mountFlags: readonly string[];
  volumeMountGroup: string;
}
const MountCapability = message<MountCapability>({
  fsType: text(1),
  mountFlags: texts(2),
  volumeMountGroup: text(3),
});

/** Either `block` or `mount`. */
export interface VolumeCapability {
  block: Inner<object>;
  mount: Inner<MountCapability>;
  accessMode: Inner<AccessMode>;
}
const VolumeCapability = message<VolumeCapability>({
  block: nested(1, Empty),
  mount: nested(2, MountCapability),
  accessMode: nested(3, AccessMode),
});

export interface NodeStageVolumeRequest {
  volumeId: string;
  publishContext: Readonly<Record<string, string>>;
  stagingTargetPath: string;
  volumeCapability: Inner<VolumeCapability>;
  secrets: Readonly<Record<string, string>>;
  volumeContext: Readonly<Record<string, string>>;
}
export const NodeStageVolumeRequest = message<NodeStageVolumeRequest>({
  volumeId: text(1),
  publishContext: textMap(2),
  stagingTargetPath: text(3),
  volumeCapability: nested(4, VolumeCapability),
  secrets: textMap(5),
  volumeContext: textMap(6),
});

export interface NodeUnstageVolumeRequest {
  volumeId: string;
  stagingTargetPath: string;
}
export const NodeUnstageVolumeRequest = message<NodeUnstageVolumeRequest>({
  volumeId: text(1),
  stagingTargetPath: text(2),
});

export interface NodePublishVolumeRequest {
  volumeId: string;
  publishContext: Readonly<Record<string, string>>;
  stagingTargetPath: string;
  targetPath: string;
  volumeCapability: Inner<VolumeCapability>;
  readonly: boolean;
  secrets: Readonly<Record<string, string>>;
  volumeContext: Readonly<Record<string, string>>;
}
export const NodePublishVolumeRequest = message<NodePublishVolumeRequest>({
  volumeId: text(1),
  publishContext: textMap(2),
  stagingTargetPath: text(3),
  targetPath: text(4),
  volumeCapability: nested(5, VolumeCapability),
  readonly: flag(6),
  secrets: textMap(7),
  volumeContext: textMap(8),
});

export interface NodeUnpublishVolumeRequest {
  volumeId: string;
  targetPath: string;
}
export const NodeUnpublishVolumeRequest = message<NodeUnpublishVolumeRequest>({
  volumeId: text(1),
  targetPath: text(2),
});

export interface NodeGetVolumeStatsRequest {
  volumeId: string;
  volumePath: string;
  stagingTargetPath: string;
}
export const NodeGetVolumeStatsRequest = message<NodeGetVolumeStatsRequest>({
  volumeId: text(1),
  volumePath: text(2),
  stagingTargetPath: text(3),
});

/** `VolumeUsage.Unit`. */
export const usageUnits = { bytes: 1, inodes: 2 } as const;

export interface VolumeUsage {
  available: number;
  total: number;
  used: number;
  unit: number;
}
const VolumeUsage = message<VolumeUsage>({
  available: integer(1),
  total: integer(2),
  used: integer(3),
  unit: integer(4),
});

export interface VolumeCondition {
  abnormal: boolean;
  message: string;
}
const VolumeCondition = message<VolumeCondition>({ abnormal: flag(1), message: text(2) });

export interface NodeGetVolumeStatsResponse {
  usage: readonly Given<VolumeUsage>[];
  volumeCondition: Inner<VolumeCondition>;
}
export const NodeGetVolumeStatsResponse = message<NodeGetVolumeStatsResponse>({
  usage: nestedList(1, VolumeUsage),
  volumeCondition: nested(2, VolumeCondition),
});

interface CapacityRange {
  requiredBytes: number;
  limitBytes: number;
}
const CapacityRange = message<CapacityRange>({ requiredBytes: integer(1), limitBytes: integer(2) });

export interface NodeExpandVolumeRequest {
  volumeId: string;
  volumePath: string;
  capacityRange: Inner<CapacityRange>;
  stagingTargetPath: string;
  volumeCapability: Inner<VolumeCapability>;
  secrets: Readonly<Record<string, string>>;
}
export const NodeExpandVolumeRequest = message<NodeExpandVolumeRequest>({
  volumeId: text(1),
  volumePath: text(2),
  capacityRange: nested(3, CapacityRange),
  stagingTargetPath: text(4),
  volumeCapability: nested(5, VolumeCapability),
  secrets: textMap(6),
});

export interface NodeExpandVolumeResponse {
  capacityBytes: number;
}
export const NodeExpandVolumeResponse = message<NodeExpandVolumeResponse>({
  capacityBytes: integer(1),
});
