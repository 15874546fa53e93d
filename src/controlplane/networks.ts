import type { Cidr } from "../lib/cidr.ts";
import { cidrAddress, cidrContains, cidrSize, parseCidr } from "../lib/cidr.ts";
import { errorMessage, SetupError } from "../lib/errors.ts";

/** Prefix length of one node's pod network. */
export const nodePrefix = 24;

/** The networks of a cluster. */
export interface Networks {
  readonly service: Cidr;
  readonly cluster: Cidr;
}

function parseNetwork(text: string, what: string): Cidr {
  try {
    return parseCidr(text, what);
  } catch (error) {
    throw new SetupError(`${errorMessage(error)}; got "${text}"`, { cause: error });
  }
}

/**
 * @throws {SetupError} they are no networks, of the wrong family, too small, or overlap.
 */
export function parseNetworks(options: {
  readonly serviceCIDR: string;
  readonly clusterCIDR: string;
}): Networks {
  const service = parseNetwork(options.serviceCIDR, "service network");
  const cluster = parseNetwork(options.clusterCIDR, "pod network");
  if (service.family !== "IPv4" || cluster.family !== "IPv4")
    throw new SetupError("the embedded control plane serves IPv4 networks only; give IPv4 ranges");
  if (cluster.prefix > nodePrefix || cidrSize(service) < 8n)
    throw new SetupError(
      `the pod network ${options.clusterCIDR} needs at least a /${nodePrefix} and the service network ${options.serviceCIDR} at least eight addresses`,
    );
  const overlap =
    cidrContains(service, cidrAddress(cluster, 0)) ||
    cidrContains(cluster, cidrAddress(service, 0));
  if (overlap)
    throw new SetupError(
      `the pod network ${options.clusterCIDR} and the service network ${options.serviceCIDR} overlap; choose another range for one of them`,
    );
  return { service, cluster };
}
