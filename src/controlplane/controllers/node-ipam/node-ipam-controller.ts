import { NODES } from "../../../api/resources.ts";
import type { Node } from "../../../api/types.gen.ts";
import type { Cidr } from "../../../lib/cidr.ts";
import { getObject, patchObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop } from "../shared/controller.ts";
import { CidrAllocator } from "./cidr-allocator.ts";

/** A pod network of the cluster. */
export interface PodNetwork {
  readonly cidr: Cidr;
  /** Prefix length of a node's share (--node-cidr-mask-size). */
  readonly nodePrefix: number;
}

function podCIDRs(node: Node): readonly string[] {
  const list = node.spec?.podCIDRs ?? [];
  const single = node.spec?.podCIDR ?? "";
  return list.length === 0 && single !== "" ? [single] : list;
}

/**
 * Gives each node its share of the pod networks, once; `spec.podCIDRs` never changes afterwards.
 *
 * @param networks One of each family, the primary one first.
 */
export function nodeIpamController(
  context: ControllerContext,
  networks: readonly PodNetwork[],
): Controller {
  const { informers, client, recorder } = context;
  const allocators = networks.map(({ cidr, nodePrefix }) => new CidrAllocator(cidr, nodePrefix));

  const reserved = new Map<string, readonly string[]>();

  const occupy = (cidrs: readonly string[]): void => {
    for (const cidr of cidrs) for (const allocator of allocators) allocator.occupy(cidr);
  };
  const release = (cidrs: readonly string[]): void => {
    for (const cidr of cidrs) for (const allocator of allocators) allocator.release(cidr);
  };

  /** A share of each network, or nothing at all. */
  function allocate(): readonly string[] | undefined {
    const shares: string[] = [];
    for (const allocator of allocators) {
      const share = allocator.allocate();
      if (share === undefined) {
        release(shares);
        return undefined;
      }
      shares.push(share);
    }
    return shares;
  }

  async function sync(name: string, signal: AbortSignal): Promise<void> {
    const cached = informers.nodes.get(name);
    if (cached === undefined || podCIDRs(cached).length > 0) return;
    // Asked live: the cache may be older than our own last write.
    const node = await getObject(client, { resource: NODES, name }, signal);
    if (podCIDRs(node).length > 0) return;
    // Kept over a failed write, so that a node gets the same range whichever try succeeds.
    const cidrs = reserved.get(name) ?? allocate();
    if (cidrs === undefined) {
      recorder.event(
        eventTarget(NODES, node),
        "Normal",
        "CIDRNotAvailable",
        `Node ${name} status is now: CIDRNotAvailable`,
      );
      throw new Error("a pod network has no free range for another node");
    }
    reserved.set(name, cidrs);
    // Only the UID is a condition: heartbeats change the version all the time, and nobody else writes these fields.
    await patchObject(
      client,
      { resource: NODES, name },
      { metadata: { uid: node.metadata.uid }, spec: { podCIDR: cidrs[0], podCIDRs: [...cidrs] } },
      signal,
    );
    reserved.delete(name);
  }

  return {
    name: "node-ipam",
    run: (signal) =>
      runQueueLoop(
        {
          name: "node-ipam",
          context,
          waitFor: [informers.nodes],
          // One at a time: two nodes must never be given the same range.
          concurrency: 1,
          sync: (name) => sync(name, signal),
          subscribe: (queue) => {
            // All that is taken is known before the first range is given away.
            for (const node of informers.nodes.values()) occupy(podCIDRs(node));
            return [
              informers.nodes.subscribe((change) => {
                if (change.kind === "deleted") {
                  release([...podCIDRs(change.previous), ...(reserved.get(change.key) ?? [])]);
                  reserved.delete(change.key);
                  return;
                }
                occupy(podCIDRs(change.object));
                queue.add(change.key);
              }),
            ];
          },
        },
        signal,
      ),
  };
}
