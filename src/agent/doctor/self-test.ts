import type { Machine } from "./machine.ts";

/** Things that pods' network needs of kernel and tools, each tried in a namespace that is thrown away. */
const attempts = {
  veth: "ip link add rmd0 type veth peer name rmd1",
  bridge: "ip link add rmdbr0 type bridge",
  "nft-tables": "nft 'add table ip rmd'",
  "nft-readback": "nft -j list table ip rmd",
  "nft-nat":
    "nft 'add chain ip rmd post { type nat hook postrouting priority srcnat ; }; add rule ip rmd post masquerade'",
  "nft-conntrack":
    "nft 'add chain ip rmd fwd { type filter hook forward priority filter ; }; add rule ip rmd fwd ct state established accept; add rule ip rmd fwd reject'",
  "nft-maps":
    "nft 'add map ip rmd m { typeof ip daddr . tcp dport . numgen random mod 2 : ip daddr . tcp dport ; }; add chain ip rmd c; add rule ip rmd c meta l4proto tcp dnat ip addr . port to ip daddr . tcp dport . numgen random mod 2 map @m'",
  iptables: "iptables -w 5 -t nat -A POSTROUTING -j MASQUERADE",
} as const;
export type Attempt = keyof typeof attempts;

/** What each attempt said; empty = it went well. */
export type SelfTest =
  | { readonly kind: "done"; readonly said: Readonly<Record<Attempt, string>> }
  | { readonly kind: "impossible"; readonly why: string };

const script = [
  'try() { out=$(eval "$2" 2>&1) && echo "$1 ok" || echo "$1 no $(echo "$out" | tr "\\n" " ")"; }',
  ...Object.entries(attempts).map(([name, line]) => `try ${name} "${line}"`),
].join("\n");

/** Reads what the script printed. Pure. */
export function parseSelfTest(stdout: string): Readonly<Record<Attempt, string>> {
  const said = new Map<string, string>();
  for (const line of stdout.split("\n")) {
    const [, name = "", verdict, text = ""] = /^(\S+) (ok|no)(?: (.*))?$/.exec(line) ?? [];
    said.set(name, verdict === "ok" ? "" : text.trim() || "it failed without a word");
  }
  const of = (name: Attempt): string => said.get(name) ?? "it was not tried";
  return {
    veth: of("veth"),
    bridge: of("bridge"),
    "nft-tables": of("nft-tables"),
    "nft-readback": of("nft-readback"),
    "nft-nat": of("nft-nat"),
    "nft-conntrack": of("nft-conntrack"),
    "nft-maps": of("nft-maps"),
    iptables: of("iptables"),
  };
}

const done = new WeakMap<Machine, Promise<SelfTest>>();

async function test(machine: Machine, signal: AbortSignal): Promise<SelfTest> {
  if (!machine.isRoot) return { kind: "impossible", why: "only root may make namespaces" };
  const result = await machine.run(["unshare", "--net", "--", "sh", "-c", script], { signal });
  if (result === undefined) return { kind: "impossible", why: "unshare is not installed" };
  // It answers for each attempt, whatever comes of it.
  if (result.stdout === "") return { kind: "impossible", why: result.stderr.trim() };
  return { kind: "done", said: parseSelfTest(result.stdout) };
}

/** Tries them, once for all who ask. Nothing of it is seen outside of the namespace. */
export function selfTest(machine: Machine, signal: AbortSignal): Promise<SelfTest> {
  const known = done.get(machine) ?? test(machine, signal);
  done.set(machine, known);
  return known;
}
