import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import type { ApiClient } from "../../../src/api/client.ts";
import { createHttpClient } from "../../../src/api/http-client.ts";
import { loadKubeconfig } from "../../../src/api/kubeconfig.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { isRecord } from "../../../src/lib/guard.ts";
import { silentLogger } from "../../../src/lib/log.ts";

const program = fileURLToPath(new URL("./serve.ts", import.meta.url));
const PATH = "/api/v1/namespaces/default/configmaps";
const ROUNDS = 4;
const WRITERS = 3;

function metadata(object: unknown, field: string): string {
  const value = isRecord(object) ? object["metadata"] : undefined;
  return isRecord(value) ? String(value[field]) : "";
}

async function serve(directory: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, [program, directory], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise((resolve, reject) => {
    child.stdout?.once("data", resolve);
    child.once("exit", (code) => reject(new Error(`the control plane ended with ${code}`)));
  });
  return child;
}

/** What the server has acknowledged: name -> resourceVersion; undefined for what was acknowledged as deleted. */
class Ledger {
  readonly known = new Map<string, string | undefined>();
  /** Names with a request under way: the kill may fall on either side of it. */
  readonly open = new Set<string>();
  newest = 0;

  note(name: string, reply: unknown): void {
    const version = metadata(reply, "resourceVersion");
    this.known.set(name, version);
    this.newest = Math.max(this.newest, Number(version));
  }
}

/** Creates, changes and deletes ConfigMaps until the server is gone. */
async function write(
  client: ApiClient,
  ledger: Ledger,
  prefix: string,
  signal: AbortSignal,
): Promise<void> {
  for (let index = 0; ; index += 1) {
    const name = `${prefix}-${index}`;
    const path = `${PATH}/${name}`;
    ledger.open.add(name);
    try {
      const body = { apiVersion: "v1", kind: "ConfigMap", metadata: { name }, data: { a: "1" } };
      ledger.note(name, await client.request({ method: "POST", path: PATH, body, signal }));
      if (index % 2 === 0) {
        const changed = { ...body, data: { a: "2" } };
        ledger.note(name, await client.request({ method: "PUT", path, body: changed, signal }));
      }
      if (index % 5 === 0) {
        await client.request({ method: "DELETE", path, signal });
        ledger.known.set(name, undefined);
      }
      ledger.open.delete(name);
    } catch {
      return;
    }
  }
}

test("kill -9 in the middle of writes loses nothing that was acknowledged", async () => {
  const directory = await mkdtemp(join(tmpdir(), "remora-kill-"));
  const ledger = new Ledger();
  let child = await serve(directory);
  try {
    for (let round = 0; round < ROUNDS; round += 1) {
      const stop = new AbortController();
      const connect = async (): Promise<ReturnType<typeof createHttpClient>> =>
        createHttpClient({
          kubeconfig: await loadKubeconfig(join(directory, "admin.conf")),
          userAgent: "test",
          clock: systemClock,
          logger: silentLogger,
        });
      const writing = await connect();
      const before = ledger.known.size;
      const writers = Array.from({ length: WRITERS }, (_, index) =>
        write(writing, ledger, `r${round}-${index}`, stop.signal),
      );
      while (ledger.known.size < before + 20 + round * 17)
        await systemClock.sleep(1, AbortSignal.timeout(10_000));
      const exited = once(child, "exit");
      child.kill("SIGKILL");
      await exited;
      stop.abort();
      await Promise.all(writers);
      await writing.close();

      child = await serve(directory);
      const client = await connect();
      const list = await client.request({
        method: "GET",
        path: PATH,
        signal: AbortSignal.timeout(10_000),
      });
      const items = isRecord(list) && Array.isArray(list["items"]) ? list["items"] : [];
      const found = new Map(
        items.map((one) => [metadata(one, "name"), metadata(one, "resourceVersion")]),
      );
      for (const [name, version] of ledger.known) {
        const now = found.get(name);
        const deleting = Number(name.split("-").at(-1)) % 5 === 0;
        if (!ledger.open.has(name)) assert.equal(now, version, name);
        else if (now !== undefined) assert.ok(Number(now) >= Number(version), name);
        else assert.ok(deleting, `${name} was acknowledged, only a change of it was under way`);
      }
      for (const name of found.keys())
        assert.ok(
          name === "kube-root-ca.crt" || ledger.known.has(name) || ledger.open.has(name),
          name,
        );
      assert.ok(Number(metadata(list, "resourceVersion")) >= ledger.newest);
      for (const name of ledger.open) {
        const version = found.get(name);
        if (version === undefined) ledger.known.delete(name);
        else ledger.known.set(name, version);
      }
      ledger.open.clear();
      await client.close();
    }
    assert.ok(ledger.known.size > 100);
  } finally {
    child.kill("SIGKILL");
    await rm(directory, { recursive: true, force: true });
  }
});
