import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readlinkSync } from "node:fs";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";

import type { Report } from "./run-inside.ts";

const marker = "REMORA_TEST_NETNS";
const peerFile = new URL("peer.ts", import.meta.url).pathname;
const insideFile = new URL("run-inside.ts", import.meta.url).pathname;
const run = promisify(execFile);

/**
 * True inside a network and mount namespace made for this file. Outside, registers a test that runs the file again in a
 * fresh one and reports each of its tests: nothing here ever touches the host's own rules.
 */
export function insideOwnNamespace(file: string): boolean {
  if (process.env[marker] !== undefined) {
    assert.notEqual(readlinkSync("/proc/self/ns/net"), process.env[marker], "still on the host");
    return true;
  }
  const root = process.getuid?.() === 0;
  test(
    `in a network namespace: ${file.split("/").at(-1) ?? file}`,
    { skip: root ? false : "needs root" },
    async (t) => {
      const child = spawn(
        "unshare",
        ["--net", "--mount", "--", process.execPath, insideFile, file],
        {
          stdio: ["ignore", "pipe", "pipe"],
          env: childEnv({ [marker]: readlinkSync("/proc/self/ns/net") }),
        },
      );
      const closed = once(child, "close");
      let errors = "";
      let count = 0;
      child.stderr.on("data", (chunk: Buffer) => {
        if (process.env["VERBOSE"] !== undefined) process.stderr.write(chunk);
        errors = (errors + chunk.toString()).slice(-10_000);
      });
      for await (const line of createInterface({ input: child.stdout })) {
        const { name, skip, failure, seconds } = JSON.parse(line) as Report;
        if (process.env["VERBOSE"] !== undefined)
          process.stderr.write(`${seconds ?? "-"} s ${name}\n`);
        count += 1;
        await t.test(name, { skip: skip ?? false }, () => {
          if (failure !== undefined) throw new Error(failure);
        });
      }
      const [code] = (await closed) as [number | null];
      assert.equal(code, 0, errors);
      assert.ok(count > 0, `no test ran\n${errors}`);
    },
  );
  return false;
}

/** The environment without what a surrounding test run put there: it would make an inner one report to it. */
function childEnv(extra: Record<string, string>): NodeJS.ProcessEnv {
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
  return { ...env, ...extra };
}

/** Runs a program and returns its stdout. */
export async function sh(...argv: [string, ...string[]]): Promise<string> {
  const [file, ...args] = argv;
  const { stdout } = await run(file, args, { maxBuffer: 64 * 1024 * 1024 });
  return stdout;
}

/** A process that holds a network namespace of its own, as a pod's sandbox does. */
export class Machine {
  readonly pid: number;
  readonly #children: ChildProcess[] = [];
  readonly #root: ChildProcess;

  static readonly #all = new Set<Machine>();

  private constructor(root: ChildProcess, pid: number) {
    this.#root = root;
    this.pid = pid;
    Machine.#all.add(this);
  }

  /** Ends every machine that a failed test left running. */
  static async stopAll(): Promise<void> {
    for (const machine of Machine.#all) await machine.stop();
  }

  static async start(): Promise<Machine> {
    const child = spawn("unshare", ["--net", "sleep", "300"], { stdio: "ignore" });
    const { pid } = child;
    assert.ok(pid !== undefined);
    const own = readlinkSync("/proc/self/ns/net");
    while (readlinkSync(`/proc/${pid}/ns/net`) === own) await delay(2);
    return new Machine(child, pid);
  }

  /** Runs a program inside. */
  sh(...argv: string[]): Promise<string> {
    return sh("nsenter", "-t", String(this.pid), "-n", ...argv);
  }

  /** Starts the answering server on TCP and UDP `port`; it says `name` and the caller's address. */
  async serve(name: string, port: number): Promise<void> {
    const child = spawn(
      "nsenter",
      ["-t", String(this.pid), "-n", process.execPath, peerFile, "serve", name, String(port)],
      { stdio: ["ignore", "pipe", "inherit"], env: childEnv({}) },
    );
    this.#children.push(child);
    await once(child.stdout, "data");
  }

  /** Asks `count` times from inside; one answer per line. */
  ask(
    protocol: "tcp" | "udp",
    to: string,
    options: { count?: number; timeoutMs?: number; localPort?: number } = {},
  ): Promise<string[]> {
    return ask(["nsenter", "-t", String(this.pid), "-n"], protocol, to, options);
  }

  async stop(): Promise<void> {
    Machine.#all.delete(this);
    for (const child of [...this.#children, this.#root]) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, "close");
      child.kill("SIGKILL");
      await ended;
    }
  }
}

/** Asks from this process's own namespace. */
export function askFromNode(
  protocol: "tcp" | "udp",
  to: string,
  options: { count?: number; timeoutMs?: number; localPort?: number } = {},
): Promise<string[]> {
  return ask([], protocol, to, options);
}

async function ask(
  prefix: readonly string[],
  protocol: "tcp" | "udp",
  to: string,
  options: { count?: number; timeoutMs?: number; localPort?: number },
): Promise<string[]> {
  const colon = to.lastIndexOf(":");
  const argv = [
    ...prefix,
    process.execPath,
    peerFile,
    protocol,
    to.slice(0, colon),
    to.slice(colon + 1),
    String(options.count ?? 1),
    String(options.timeoutMs ?? 1000),
    String(options.localPort ?? 0),
  ];
  const [file = "", ...args] = argv;
  const { stdout } = await run(file, args, { env: childEnv({}) });
  return stdout.trimEnd().split("\n");
}

/** Gives the namespace an uplink with a default route, and a machine at its far end, outside the cluster. */
export async function connectOutside(): Promise<Machine> {
  const client = await Machine.start();
  await sh("ip", "link", "set", "lo", "up");
  const pair = "link add up0 type veth peer name eth0 netns";
  await sh("ip", ...pair.split(" "), String(client.pid));
  await sh("ip", "addr", "add", "192.0.2.1/24", "dev", "up0");
  await sh("ip", "-6", "addr", "add", "2001:db8:5::1/64", "dev", "up0", "nodad");
  await sh("ip", "link", "set", "up0", "up");
  await client.sh("ip", "link", "set", "lo", "up");
  await client.sh("ip", "addr", "add", "192.0.2.2/24", "dev", "eth0");
  await client.sh("ip", "-6", "addr", "add", "2001:db8:5::2/64", "dev", "eth0", "nodad");
  await client.sh("ip", "link", "set", "eth0", "up");
  await client.sh("ip", "route", "add", "172.30.0.0/16", "via", "192.0.2.1");
  await sh("ip", "route", "add", "default", "via", "192.0.2.2");
  await sh("ip", "-6", "route", "add", "default", "via", "2001:db8:5::2");
  return client;
}

/** Everything a program could leave behind in this namespace, as comparable text. */
export async function inventory(): Promise<string> {
  const parts = [
    await sh("nft", "list", "ruleset"),
    await sh("iptables-save"),
    await sh("ip6tables-save"),
    await sh("ip", "-o", "link"),
    await sh("ip", "route"),
  ];
  return parts
    .join("\n")
    .split("\n")
    .filter((line) => !line.startsWith("#"))
    .map((line) => line.replace(/\[\d+:\d+\]/, ""))
    .join("\n");
}
