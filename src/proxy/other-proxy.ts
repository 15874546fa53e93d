import { get } from "node:http";
import { readdir, readFile, readlink } from "node:fs/promises";

import type { Clock } from "../lib/clock.ts";
import type { ProxyMode } from "./backend.ts";

/** kube-proxy's own ports, and what it answers there. */
const pages = [
  { port: 10_249, path: "/proxyMode", pattern: /^(?:iptables|ipvs|nftables|userspace)\s*$/ },
  { port: 10_256, path: "/healthz", pattern: /"lastUpdated"/ },
] as const;
const patienceMs = 1000;
const pollMs = 5000;

/** Finds out whether another service proxy runs on this machine. */
export interface OtherProxyProbe {
  /** @returns Where it answers, for people; undefined when none does. */
  (signal: AbortSignal): Promise<string | undefined>;
}

/**
 * Asks kube-proxy's ports in this network namespace; what this process itself serves there does not count.
 *
 * @param ours Pid of the agent, where somebody else asks.
 */
export async function findOtherProxy(
  signal: AbortSignal,
  ours: number | "self" = "self",
): Promise<string | undefined> {
  for (const { port, path, pattern } of pages) {
    if (await isPortOf(ours, port)) continue;
    const text = await textOf(port, path, signal);
    if (text === undefined || !pattern.test(text)) continue;
    return path === "/proxyMode"
      ? `127.0.0.1:${port} (mode ${text.trim()})`
      : `127.0.0.1:${port}${path}`;
  }
  return undefined;
}

/** @returns Undefined for whatever is no answer of this sort. */
async function textOf(
  port: number,
  path: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const request = get({ host: "127.0.0.1", port, path, timeout: patienceMs, agent: false, signal });
  request.on("timeout", () => request.destroy());
  request.on("close", () => {
    resolve(undefined);
  });
  request.on("error", () => {
    resolve(undefined);
  });
  request.on("response", (response) => {
    let text = "";
    response.setEncoding("utf8");
    response.on("data", (chunk: string) => {
      text += chunk;
      if (text.length > 64 * 1024) request.destroy();
    });
    response.on("end", () => {
      resolve(text);
    });
    response.on("error", () => {
      resolve(undefined);
    });
  });
  return promise;
}

/** Inodes of sockets that listen on a port, out of /proc/net/tcp and tcp6. */
export function listenersOn(port: number, table: string): readonly string[] {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return table.split("\n").flatMap((line) => {
    const [, local = "", , state, , , , , , inode = ""] = line.trim().split(/\s+/);
    // 0A is TCP_LISTEN.
    return state === "0A" && local.endsWith(suffix) ? [inode] : [];
  });
}

async function isPortOf(pid: number | "self", port: number): Promise<boolean> {
  const tables = await Promise.all(
    ["tcp", "tcp6"].map((name) => readFile(`/proc/self/net/${name}`, "utf8").catch(() => "")),
  );
  const sockets = new Set(
    tables.flatMap((table) => listenersOn(port, table)).map((inode) => `socket:[${inode}]`),
  );
  if (sockets.size === 0) return false;
  // A process that is gone holds none.
  for (const descriptor of await readdir(`/proc/${pid}/fd`).catch(() => [])) {
    const target = await readlink(`/proc/${pid}/fd/${descriptor}`).catch(() => "");
    if (sockets.has(target)) return true;
  }
  return false;
}

/** What somebody who has two service proxies on a machine should know. */
export function twoProxies(where: string, mode: ProxyMode): string {
  const meanwhile =
    mode === "iptables"
      ? "both would write the same chains, so nothing is written until it ends"
      : "what it wrote stays until it ends";
  return `another service proxy answers on ${where}; ${meanwhile}: stop it, for example with \`kubectl -n kube-system delete daemonset kube-proxy\` or \`systemctl stop kube-proxy\``;
}

/**
 * Resolves when no other proxy answers.
 *
 * @param onFound Gets where one answers, once.
 */
export async function whenAlone(
  probe: OtherProxyProbe,
  onFound: (where: string) => void,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  for (let told = false; ; told = true) {
    const where = await probe(signal);
    signal.throwIfAborted();
    if (where === undefined) return;
    if (!told) onFound(where);
    await clock.sleep(pollMs, signal);
  }
}
