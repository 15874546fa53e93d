// kube-proxy's nftables layout as text, made without anything of src: one chain per Service port with an anonymous map
// of its endpoints, one chain per endpoint, and the two maps that dispatch. Loaded with `nft -f -`.
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
  return `add rule ${table} service-${index} numgen random mod 2 vmap { 0 : goto endpoint-${index}-0, 1 : goto endpoint-${index}-1 }`;
}

/** The whole table for `count` Services with two endpoints each, replacing what was there. */
export function coldText(count: number): string {
  const lines = [
    `add table ${table}`,
    `delete table ${table}`,
    `add table ${table}`,
    `add chain ${table} services`,
    `add chain ${table} output { type nat hook output priority -100 ; }`,
    `add map ${table} service-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }`,
  ];
  for (let index = 0; index < count; index += 1) {
    lines.push(`add chain ${table} service-${index}`);
    for (const which of [0, 1]) {
      lines.push(
        `add chain ${table} endpoint-${index}-${which}`,
        `add rule ${table} endpoint-${index}-${which} meta l4proto tcp dnat to ${endpoint(index, which)}:8080`,
      );
    }
    lines.push(
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

/** Loads the table; returns milliseconds. */
export async function loadCold(count: number): Promise<number> {
  const text = coldText(count);
  const start = performance.now();
  await nft(["-f", "-"], text);
  return performance.now() - start;
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
