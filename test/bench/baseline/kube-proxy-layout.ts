// kube-proxy's nftables layout as text, made without anything of src: a chain per Service port with an anonymous map of
// its endpoints, a map that dispatches, and the set of cluster addresses. Loaded with `nft -f FILE`.
import { spawn } from "node:child_process";
import { once } from "node:events";

const table = "ip baseline";

function vip(index: number): string {
  return `172.${16 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`;
}

function endpoint(index: number, which: number): string {
  const number = index * 2 + which;
  return `10.${100 + (number >> 16)}.${(number >> 8) & 255}.${number & 255}`;
}

function serviceRule(index: number): string {
  const targets = [0, 1].map((which) => `${which} : ${endpoint(index, which)} . 8080`);
  return `add rule ${table} service-${index} meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { ${targets.join(" , ")} }`;
}

/** The whole table for `count` Services with two endpoints each, replacing what was there. */
export function coldText(count: number): string {
  const lines = [
    `add table ${table}`,
    `delete table ${table}`,
    `add table ${table}`,
    `add chain ${table} services`,
    `add chain ${table} output { type nat hook output priority -100 ; }`,
    `add set ${table} cluster-ips { type ipv4_addr ; }`,
    `add map ${table} service-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }`,
  ];
  for (let index = 0; index < count; index += 1) {
    lines.push(
      `add element ${table} cluster-ips { ${vip(index)} }`,
      `add chain ${table} service-${index}`,
      serviceRule(index),
      `add element ${table} service-ips { ${vip(index)} . tcp . 80 : goto service-${index} }`,
    );
  }
  lines.push(
    `add rule ${table} services ip daddr . meta l4proto . th dport vmap @service-ips`,
    `add rule ${table} output jump services`,
  );
  return `${lines.join("\n")}\n`;
}

async function nft(args: readonly string[], input: string): Promise<void> {
  const child = spawn("nft", args, { stdio: ["pipe", "ignore", "inherit"] });
  child.stdin.end(input);
  const [code] = (await once(child, "close")) as [number];
  if (code !== 0) throw new Error(`nft ${args.join(" ")} ended with ${code}`);
}

/** One endpoint change as kube-proxy 1.36 does it: list the table, rewrite one chain. Returns milliseconds. */
export async function changeOne(index: number): Promise<number> {
  const start = performance.now();
  await nft(["--json", "--terse", "list", "table", ...table.split(" ")], "");
  await nft(["-f", "-"], `flush chain ${table} service-${index}\n${serviceRule(index)}\n`);
  return performance.now() - start;
}

export async function remove(): Promise<void> {
  await nft(["-f", "-"], `add table ${table}\ndelete table ${table}\n`);
}
