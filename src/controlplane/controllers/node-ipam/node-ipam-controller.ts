import { NODES } from "../../../api/resources.ts";
import type { Node } from "../../../api/types.gen.ts";
import type { Cidr } from "../../../lib/cidr.ts";
import { getObject, patchObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop } from "../shared/controller.ts";
import { CidrAllocator } from "./cidr-allocator.ts";

export interface NodeIpamOptions {
  readonly clusterCIDR: Cidr;
  /** Prefix length of a node's share (--node-cidr-mask-size), 24 for IPv4. */
  readonly nodePrefix: number;
}

function podCIDRs(node: Node): readonly string[] {
  const list = node.spec?.podCIDRs ?? [];
  const single = node.spec?.podCIDR ?? "";
  return list.length === 0 && single !== "" ? [single] : list;
}

/** Gives each node its share of the pod network, once; `spec.podCIDR` never changes afterwards. */
export function nodeIpamController(
  context: ControllerContext,
  options: NodeIpamOptions,
): Controller {
  const { informers, client, recorder } = context;
  const allocator = new CidrAllocator(options.clusterCIDR, options.nodePrefix);

  const reserved = new Map<string, string>();

  async function sync(name: string, signal: AbortSignal): Promise<void> {
    const cached = informers.nodes.get(name);
    if (cached === undefined || podCIDRs(cached).length > 0) return;
    // Asked live: the cache may be older than our own last write.
    const node = await getObject(client, { resource: NODES, name }, signal);
    if (podCIDRs(node).length > 0) return;
    // Kept over a failed write, so that a node gets the same range whichever try succeeds.
    const cidr = reserved.get(name) ?? allocator.allocate();
    if (cidr === undefined) {
      recorder.event(
        eventTarget(NODES, node),
        "Normal",
        "CIDRNotAvailable",
        `Node ${name} status is now: CIDRNotAvailable`,
      );
      throw new Error("the pod network has no free range for another node");
    }
    reserved.set(name, cidr);
    // Only the UID is a condition: heartbeats change the version all the time, and nobody else writes these fields.
    await patchObject(
      client,
      { resource: NODES, name },
      { metadata: { uid: node.metadata.uid }, spec: { podCIDR: cidr, podCIDRs: [cidr] } },
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
            for (const node of informers.nodes.values())
              for (const cidr of podCIDRs(node)) allocator.occupy(cidr);
            return [
              informers.nodes.subscribe((change) => {
                if (change.kind === "deleted") {
                  for (const cidr of podCIDRs(change.previous)) allocator.release(cidr);
                  const unused = reserved.get(change.key);
                  if (unused !== undefined) allocator.release(unused);
                  reserved.delete(change.key);
                  return;
                }
                for (const cidr of podCIDRs(change.object)) allocator.occupy(cidr);
                queue.add(change.key);
              }),
            ];
          },
        },
        signal,
      ),
  };
}
