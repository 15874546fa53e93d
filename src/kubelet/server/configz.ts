import { encodeShape } from "../../config/decode.ts";
import {
  type KubeletConfiguration,
  kubeletApiVersion,
  kubeletShape,
} from "../../config/kubelet-configuration.ts";
import { kubeletDefaults } from "../../config/kubelet-defaults.ts";
import type { Fields, Json, Leaf, ObjectShape } from "../../config/shape.ts";
import type { AgentConfig } from "../../config/types.ts";
import { isRecord, type JsonRecord } from "../../lib/guard.ts";

/** What the agent knows better than the configuration it was started with: addresses, certificates, the cluster's words. */
function running(config: AgentConfig, kubelet: KubeletConfiguration): KubeletConfiguration {
  return {
    ...kubelet,
    address: config.bindAddress,
    port: config.kubeletPort,
    healthzPort: config.kubeletHealthzPort,
    tlsCertFile: config.tlsCertFile,
    tlsPrivateKeyFile: config.tlsPrivateKeyFile,
    serverTLSBootstrap: config.serverTLSBootstrap ?? kubelet.serverTLSBootstrap,
    rotateCertificates: config.rotateCertificates ?? kubelet.rotateCertificates,
    authentication: { ...kubelet.authentication, x509: { clientCAFile: config.clientCAFile } },
    clusterDNS: config.clusterDNS,
    clusterDomain: config.clusterDomain,
    resolvConf: config.resolvConf,
    maxPods: config.maxPods,
    podLogsDir: config.podLogsDir,
    evictionHard: config.evictionHard,
    containerRuntimeEndpoint: `unix://${config.dockerSocket}`,
    // Their values are credentials.
    staticPodURLHeader: {},
  };
}

/** Go leaves out what is zero and no pointer; durations and objects always stand there. */
function goOmits(leaf: Leaf<unknown>, json: Json): boolean {
  if (leaf.pointer || leaf.type.name === "duration") return false;
  if (Array.isArray(json)) return json.length === 0;
  return isRecord(json)
    ? Object.keys(json).length === 0
    : json === "" || json === 0 || json === false;
}

function asGoPrints(shape: ObjectShape<Fields>, json: JsonRecord): JsonRecord {
  const members = Object.entries(shape.fields).flatMap(([name, member]): [string, unknown][] => {
    const value = json[name];
    if (member.kind === "leaf") {
      return value === undefined || goOmits(member, value as Json) ? [] : [[name, value]];
    }
    const inner = asGoPrints(member, isRecord(value) ? value : {});
    return member.optional && Object.keys(inner).length === 0 ? [] : [[name, inner]];
  });
  return Object.fromEntries(members);
}

/**
 * What runs now as a KubeletConfiguration, in the shape of the kubelet's own /configz: all fields, also those that only
 * have defaults.
 */
export function kubeletConfiguration(config: AgentConfig): JsonRecord {
  const kubelet = running(config, config.kubelet ?? kubeletDefaults());
  const json = encodeShape(kubeletShape, kubelet);
  return {
    kind: "KubeletConfiguration",
    apiVersion: kubeletApiVersion,
    ...asGoPrints(kubeletShape, isRecord(json) ? json : {}),
  };
}
