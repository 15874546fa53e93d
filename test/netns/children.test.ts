import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { insideOwnNamespace } from "./namespace.ts";

/** Processes with `parent` as their parent, and what they run. */
function childrenOf(parent: number): { readonly pid: number; readonly command: string }[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const status = readFileSync(`/proc/${name}/status`, "utf8");
        if (/^PPid:\t(\d+)$/m.exec(status)?.[1] !== String(parent)) return [];
        const command = readFileSync(`/proc/${name}/cmdline`, "utf8").replaceAll("\0", " ").trim();
        return [{ pid: Number(name), command }];
      } catch {
        return [];
      }
    });
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\t[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

const program = `
  import { systemClock } from "${new URL("../../src/lib/clock.ts", import.meta.url).href}";
  import { silentLogger } from "${new URL("../../src/lib/log.ts", import.meta.url).href}";
  import { DeletionWatch } from "${new URL("../../src/netfilter/monitor.ts", import.meta.url).href}";
  const options = { clock: systemClock, logger: silentLogger, random: Math.random };
  await new DeletionWatch(options).run(new AbortController().signal);
`;

if (insideOwnNamespace(import.meta.filename)) {
  test("kill -9 of the agent leaves no nft monitor behind", async () => {
    const agent = spawn(process.execPath, ["--input-type=module", "-e", program], {
      stdio: ["ignore", "ignore", "inherit"],
    });
    const { pid } = agent;
    assert.ok(pid !== undefined);
    let monitor: number | undefined;
    try {
      for (let turn = 0; turn < 200 && monitor === undefined; turn += 1) {
        monitor = childrenOf(pid).find(({ command }) => command.startsWith("nft monitor"))?.pid;
        await delay(20);
      }
    } finally {
      const ended = once(agent, "close");
      agent.kill("SIGKILL");
      await ended;
    }
    assert.ok(monitor !== undefined, "the monitor was started");
    for (let turn = 0; turn < 50 && isAlive(monitor); turn += 1) await delay(20);
    const outlived = isAlive(monitor);
    if (outlived) process.kill(monitor, "SIGKILL");
    assert.equal(outlived, false);
  });
}
