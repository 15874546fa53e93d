import type { IPFamily } from "../../../src/lib/cidr.ts";

/** Pods by name; `remote` is on another node. */
export const podNames = ["a", "b", "c", "remote"] as const;
export type PodName = (typeof podNames)[number];

/** Everybody's addresses in one family. */
export interface Addresses {
  readonly family: IPFamily;
  readonly suffix: "v4" | "v6";
  readonly pods: Readonly<Record<PodName, string>>;
  /** The bridge's, which pods send everything to. */
  readonly gateway: string;
  readonly node: string;
  /** A second one of the node, not in the list that the proxy is given. */
  readonly nodeSecond: string;
  /** One that the node gets at run time. */
  readonly nodeLater: string;
  /** A network that holds the last two and not the first. */
  readonly nodeOthers: string;
  readonly client: string;
  readonly loopback: string;
  /** Prefix length of one address. */
  readonly single: number;
  readonly serviceCIDR: string;
  /** Addresses of Services, by number below 250. */
  readonly clusterIP: (number: number) => string;
  /** Addresses that belong to no machine and are routed to the node. */
  readonly external: (number: number) => string;
  /** Addresses that the client has besides its own, up to 60 000. */
  readonly many: (number: number) => string;
  /** Everything. */
  readonly everything: string;
}

export const families: Readonly<Record<IPFamily, Addresses>> = {
  IPv4: {
    family: "IPv4",
    suffix: "v4",
    pods: { a: "10.244.0.2", b: "10.244.0.3", c: "10.244.0.4", remote: "10.244.1.2" },
    gateway: "10.244.0.1",
    node: "192.0.2.1",
    nodeSecond: "192.0.2.17",
    nodeLater: "192.0.2.18",
    nodeOthers: "192.0.2.16/28",
    client: "192.0.2.2",
    loopback: "127.0.0.1",
    single: 32,
    serviceCIDR: "172.30.0.0/16",
    clusterIP: (number) => `172.30.${Math.floor(number / 250)}.${(number % 250) + 1}`,
    external: (number) => `198.51.${100 + Math.floor(number / 250)}.${(number % 250) + 1}`,
    many: (number) => `10.77.${Math.floor(number / 250)}.${(number % 250) + 1}`,
    everything: "0.0.0.0/0",
  },
  IPv6: {
    family: "IPv6",
    suffix: "v6",
    pods: { a: "fd00:244::2", b: "fd00:244::3", c: "fd00:244::4", remote: "fd00:244:0:1::2" },
    gateway: "fd00:244::1",
    node: "2001:db8:5::1",
    nodeSecond: "2001:db8:5::17",
    nodeLater: "2001:db8:5::18",
    nodeOthers: "2001:db8:5::10/124",
    client: "2001:db8:5::2",
    loopback: "::1",
    single: 128,
    serviceCIDR: "fd00:30::/112",
    clusterIP: (number) => `fd00:30::${(number + 1).toString(16)}`,
    external: (number) => `2001:db8:51::${(number + 1).toString(16)}`,
    many: (number) => `fd00:77::${(number + 1).toString(16)}`,
    everything: "::/0",
  },
};

/** The other family. */
export function otherFamily({ family }: Addresses): Addresses {
  return families[family === "IPv4" ? "IPv6" : "IPv4"];
}
