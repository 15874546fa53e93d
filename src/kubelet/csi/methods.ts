import {
  Empty,
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
  PluginInfo,
  RegistrationStatus,
} from "./messages.ts";
import type { MessageType } from "../../lib/protobuf-message.ts";
import type { RpcMethod } from "./rpc.ts";

function method<Q, A>(
  path: string,
  request: MessageType<Q>,
  answer: MessageType<A>,
): RpcMethod<Q, A> {
  return { path, request, answer };
}

function node<Q, A>(
  name: string,
  request: MessageType<Q>,
  answer: MessageType<A>,
): RpcMethod<Q, A> {
  return method(`/csi.v1.Node/${name}`, request, answer);
}

/** Service csi.v1.Node: what a driver does on a node. */
export const nodeMethods = {
  getInfo: node("NodeGetInfo", Empty, NodeGetInfoResponse),
  getCapabilities: node("NodeGetCapabilities", Empty, NodeGetCapabilitiesResponse),
  stage: node("NodeStageVolume", NodeStageVolumeRequest, Empty),
  unstage: node("NodeUnstageVolume", NodeUnstageVolumeRequest, Empty),
  publish: node("NodePublishVolume", NodePublishVolumeRequest, Empty),
  unpublish: node("NodeUnpublishVolume", NodeUnpublishVolumeRequest, Empty),
  getVolumeStats: node("NodeGetVolumeStats", NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse),
  expand: node("NodeExpandVolume", NodeExpandVolumeRequest, NodeExpandVolumeResponse),
};

/** Service pluginregistration.Registration: how a plug-in says what it is. */
export const registrationMethods = {
  getInfo: method("/pluginregistration.Registration/GetInfo", Empty, PluginInfo),
  notify: method(
    "/pluginregistration.Registration/NotifyRegistrationStatus",
    RegistrationStatus,
    Empty,
  ),
};
