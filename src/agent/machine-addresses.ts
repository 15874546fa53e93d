import type { Reachability } from "../api/reachability.ts";
import type { MachineAddresses } from "../controlplane/machine-addresses.ts";
import type { NodeAgent } from "../kubelet/node/node.ts";
import type { NodeView } from "../kubelet/types.ts";
import { cidrContains, ipFamily, parseCidr } from "../lib/cidr.ts";
import type { Logger } from "../lib/log.ts";
import {
  type AddressWatch,
  type InterfaceAddress,
  isContainerInterface,
} from "../netfilter/address-watch.ts";
import { disturbsRoutes, type RouteWatchOptions } from "../network/node-routes.ts";
import type { Runner } from "./supervise.ts";

const onlyHere = ["127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10"].map((cidr) =>
  parseCidr(cidr),
);

/** Whether others may know the address: neither loopback nor link-local. */
function isPublic({ address }: InterfaceAddress): boolean {
  return ipFamily(address) !== undefined && !onlyHere.some((cidr) => cidrContains(cidr, address));
}

/** What a control plane on this machine has to know of its addresses. Pure. */
export function machineAddresses(
  nodeIPs: readonly string[],
  interfaces: readonly InterfaceAddress[],
): MachineAddresses {
  const usable = interfaces.filter((entry) => isPublic(entry) && !entry.doubtful);
  const ofBridges = usable.filter(({ interfaceName }) => isContainerInterface(interfaceName));
  const present = usable.filter(
    (entry) =>
      !isContainerInterface(entry.interfaceName) &&
      // Certificates would be made anew each day for addresses that nobody is told of.
      (!entry.temporary || nodeIPs.includes(entry.address)),
  );
  return {
    nodeIPs,
    present: [...new Set(present.map(({ address }) => address))].toSorted(),
    // Our own bridge first: it is there as long as pods are.
    local: [...new Set(ofBridges.map(({ address }) => address))].toSorted(
      (a, b) => Number(isOurs(ofBridges, b)) - Number(isOurs(ofBridges, a)) || (a < b ? -1 : 1),
    ),
  };
}

function isOurs(interfaces: readonly InterfaceAddress[], wanted: string): boolean {
  return interfaces.some(
    ({ address, interfaceName }) => address === wanted && interfaceName.startsWith("remora"),
  );
}

/** Connections to one API server. */
export interface Resettable {
  reset(): void;
}

export interface ConnectionResetsOptions {
  readonly watch: Pick<AddressWatch, "interfaces" | "subscribe">;
  /** URL of the API server. */
  readonly server: string;
  readonly clients: readonly Resettable[];
  readonly reachability: Pick<Reachability, "isLost">;
  readonly logger: Logger;
}

/**
 * Lets go of connections that an address of this machine may have taken with it: TCP would try to reach the other end
 * from there for a quarter of an hour. An address that comes cuts attempts short that were begun without it.
 *
 * @returns Ends it.
 */
export function resetWithAddresses(options: ConnectionResetsOptions): () => void {
  const { clients, logger, reachability, server, watch } = options;
  // What does not leave the machine goes on.
  if (isLoopback(new URL(server).hostname)) return () => undefined;
  const own = (): ReadonlySet<string> =>
    new Set(
      watch.interfaces
        .filter((entry) => isPublic(entry) && !isContainerInterface(entry.interfaceName))
        .map(({ address }) => address),
    );
  let before: ReadonlySet<string> | undefined;
  return watch.subscribe(() => {
    const now = own();
    const known = before;
    before = now;
    if (known === undefined) return;
    const gone = [...known].filter((address) => !now.has(address));
    const came = [...now].some((address) => !known.has(address));
    if (gone.length === 0 && !(came && reachability.isLost)) return;
    logger.log("info", "connections to the API server are opened anew", { gone: gone.join(",") });
    for (const client of clients) client.reset();
  });
}

function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || hostname.startsWith("127.");
}

/** Does for routes to other nodes what their own watch does, with the lines that another one reads already. */
export function followRoutes(
  watch: Pick<AddressWatch, "onLine">,
): (options: RouteWatchOptions, signal: AbortSignal) => Promise<void> {
  return async ({ bridge, onDisturbed }, signal) => {
    const end = watch.onLine((line) => {
      if (line === undefined || disturbsRoutes(line, bridge)) onDisturbed();
    });
    const ended = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => ended.resolve(), { once: true });
    if (signal.aborted) ended.resolve();
    await ended.promise;
    end();
  };
}

export interface FollowMachineOptions extends Omit<ConnectionResetsOptions, "watch"> {
  readonly watch: AddressWatch;
  readonly node: Pick<NodeAgent, "refresh" | "view">;
  /** Called when addresses may have changed, with all that are known. */
  readonly onAddresses?: (addresses: MachineAddresses) => void;
}

/** Runs the watch, and tells those who cannot look for themselves. */
export function followMachine(options: FollowMachineOptions): Runner {
  const { node, onAddresses, watch } = options;
  return {
    name: "addresses",
    run: async (signal) => {
      const tell = (): void =>
        onAddresses?.(machineAddresses(node.view.hostIPs(), watch.interfaces));
      const ends = [
        resetWithAddresses(options),
        watch.onDisturbed(() => {
          node.refresh();
          tell();
        }),
        node.view.subscribe(tell),
      ];
      try {
        await watch.run(signal);
      } finally {
        for (const end of ends) end();
      }
    },
  };
}

/** Resolves when the node has an address. Rejects when `signal` aborts first. */
export async function whenAddressKnown(
  view: Pick<NodeView, "hostIPs" | "subscribe">,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  if (view.hostIPs().length > 0) return;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  const end = view.subscribe(() => {
    if (view.hostIPs().length > 0) resolve();
  });
  try {
    await promise;
  } finally {
    end();
    signal.removeEventListener("abort", onAbort);
  }
}
