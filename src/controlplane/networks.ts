import type { Cidr } from "../lib/cidr.ts";
import { cidrAddress, cidrContains, cidrSize, parseCidr } from "../lib/cidr.ts";
import { errorMessage, SetupError } from "../lib/errors.ts";

/** Prefix length of one node's pod network (kube-controller-manager's --node-cidr-mask-size of each family). */
export const nodePrefixes = { IPv4: 24, IPv6: 64 } as const;

/** The networks of a cluster, one of each family, the primary one first; both lists have the same families. */
export interface Networks {
  readonly service: readonly [Cidr, ...Cidr[]];
  readonly cluster: readonly [Cidr, ...Cidr[]];
}

function parseNetwork(text: string, what: string): Cidr {
  try {
    return parseCidr(text, what);
  } catch (error) {
    throw new SetupError(`${errorMessage(error)}; got "${text}"`, { cause: error });
  }
}

function parseAll(texts: readonly string[], what: string): readonly [Cidr, ...Cidr[]] {
  const [first, ...rest] = texts.map((text) => parseNetwork(text, what));
  if (first === undefined) throw new SetupError(`there is no ${what}; give one`);
  if (rest.length > 1 || rest[0]?.family === first.family) {
    throw new SetupError(
      `${what}: ${texts.join(",")} should be one range, or one of IPv4 and one of IPv6`,
    );
  }
  return [first, ...rest];
}

function overlap(a: Cidr, b: Cidr): boolean {
  return cidrContains(a, cidrAddress(b, 0)) || cidrContains(b, cidrAddress(a, 0));
}

/**
 * @throws {SetupError} they are no networks, of different families, too small or too large, or overlap.
 */
export function parseNetworks(options: {
  readonly serviceCIDRs: readonly string[];
  readonly clusterCIDRs: readonly string[];
}): Networks {
  const service = parseAll(options.serviceCIDRs, "service network");
  const cluster = parseAll(options.clusterCIDRs, "pod network");
  const families = (networks: readonly Cidr[]): string =>
    networks.map(({ family }) => family).join(", ");
  if (families(service) !== families(cluster)) {
    throw new SetupError(
      `the service networks are ${families(service)} and the pod networks ${families(cluster)}; give ranges of the same families in the same order`,
    );
  }
  for (const [index, range] of service.entries()) {
    const [serviceText, clusterText] = [options.serviceCIDRs[index], options.clusterCIDRs[index]];
    const pods = cluster[index];
    if (pods === undefined) continue;
    const prefix = nodePrefixes[range.family];
    if (pods.prefix > prefix || cidrSize(range) < 8n) {
      throw new SetupError(
        `the pod network ${clusterText} needs at least a /${prefix} and the service network ${serviceText} at least eight addresses`,
      );
    }
    if (overlap(range, pods)) {
      throw new SetupError(
        `the pod network ${clusterText} and the service network ${serviceText} overlap; choose another range for one of them`,
      );
    }
  }
  return { service, cluster };
}
