import { parseQuantity, value } from "../../api/quantity.ts";
import { errorMessage, RemoraError } from "../../lib/errors.ts";
import type { PodNetworkRequest } from "../../network/types.ts";
import type { AssignedPod } from "../types.ts";
import type { ResolvConf } from "./dns.ts";

/** A pod asks for a bandwidth that no network gives. */
export class BandwidthError extends RemoraError {
  readonly code = "REMORA_BANDWIDTH";
}

const smallest = 1000n;
const largest = 10n ** 15n;

/** Bits a second; undefined when the annotation is not there. */
function bandwidthOf(
  annotations: Readonly<Record<string, string>>,
  key: string,
): number | undefined {
  const text = annotations[key];
  if (text === undefined) return undefined;
  let bits: bigint;
  try {
    bits = value(parseQuantity(text, key));
  } catch (error) {
    throw new BandwidthError(`reading pod bandwidth annotations: ${errorMessage(error)}`, {
      cause: error,
    });
  }
  if (bits < smallest) {
    throw new BandwidthError(
      `reading pod bandwidth annotations: ${key}: resource is unreasonably small (< 1kbit)`,
    );
  }
  if (bits > largest) {
    throw new BandwidthError(
      `reading pod bandwidth annotations: ${key}: resource is unreasonably large (> 1Pbit)`,
    );
  }
  return Number(bits);
}

/**
 * What plug-ins of the network may ask about the pod.
 *
 * @param resolvConf What the pod's resolv.conf will say.
 * @throws {BandwidthError}
 */
export function networkRequest(pod: AssignedPod, resolvConf: ResolvConf): PodNetworkRequest {
  const annotations = pod.metadata.annotations ?? {};
  const ingressBits = bandwidthOf(annotations, "kubernetes.io/ingress-bandwidth");
  const egressBits = bandwidthOf(annotations, "kubernetes.io/egress-bandwidth");
  return {
    annotations,
    ...(ingressBits === undefined && egressBits === undefined
      ? {}
      : {
          bandwidth: {
            ...(ingressBits === undefined ? {} : { ingressBits }),
            ...(egressBits === undefined ? {} : { egressBits }),
          },
        }),
    dns: {
      servers: resolvConf.nameservers,
      searches: resolvConf.searches,
      options: resolvConf.options,
    },
  };
}
