/** The programs that rules are compared for. */
export const modes = ["nftables", "iptables"] as const;
