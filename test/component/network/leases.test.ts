import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";

import { silentLogger } from "../../../src/lib/log.ts";
import { Leases } from "../../../src/network/leases.ts";

describe("pod address leases", () => {
  let directory = "";
  const holder = (id: string) => ({
    sandboxID: id,
    podUID: `uid-${id}`,
    podKey: `ns/${id}`,
    hostPorts: [{ protocol: "TCP", hostIP: "", hostPort: 80, containerPort: 8080 } as const],
  });
  const open = async (cidrs: readonly string[]): Promise<Leases> => {
    const leases = new Leases({ directory, logger: silentLogger });
    await leases.load();
    await leases.setPools(cidrs);
    return leases;
  };

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "remora-leases-"));
  });
  afterEach(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  it("make their directory when there is a network to give addresses of, not before", async () => {
    const ours = join(directory, "ipam");
    const leases = new Leases({ directory: ours, logger: silentLogger });
    await leases.load();
    assert.equal(existsSync(ours), false);
    await leases.setPools(["10.1.0.0/24"]);
    assert.equal(existsSync(ours), true);
  });

  it("survive a restart with their host ports", async () => {
    const first = await (await open(["10.0.0.0/24", "fd00::/64"])).acquire(holder("a"));
    const again = await open(["10.0.0.0/24", "fd00::/64"]);
    assert.deepEqual(again.get("a"), first);
    assert.deepEqual(first.ips, ["10.0.0.2", "fd00::2"]);
  });

  it("survive it with the bandwidth that the pod asked for", async () => {
    const bandwidth = { ingressBits: 1_000_000 };
    await (await open(["10.0.0.0/24"])).acquire({ ...holder("a"), bandwidth });
    assert.deepEqual((await open(["10.0.0.0/24"])).get("a")?.bandwidth, bandwidth);
  });

  it("come the oldest first, also over a restart and whatever their addresses", async () => {
    await (await open(["10.0.0.0/24"])).acquire(holder("old"));
    await utimes(join(directory, "10.0.0.2"), 1_700_000_100, 1_700_000_100);
    const leases = await open(["10.0.0.0/24"]);
    await leases.acquire(holder("young"));
    const ids = (of: Leases): readonly string[] => [...of.values()].map((one) => one.sandboxID);
    assert.deepEqual(ids(leases), ["old", "young"]);
    await utimes(join(directory, "10.0.0.3"), 1_700_000_000, 1_700_000_000);
    assert.deepEqual(ids(await open(["10.0.0.0/24"])), ["young", "old"]);
  });

  it("are not given to two sandboxes at once", async () => {
    const leases = await open(["10.0.0.0/24"]);
    const all = await Promise.all(
      Array.from({ length: 50 }, (_, i) => leases.acquire(holder(`s${i}`))),
    );
    assert.equal(new Set(all.map(({ ips }) => ips[0])).size, 50);
  });

  it("use every address once and then say what to do", async () => {
    const leases = await open(["10.0.0.0/29"]);
    for (let i = 0; i < 5; i += 1) await leases.acquire(holder(`s${i}`));
    await assert.rejects(leases.acquire(holder("late")), /no free pod address in 10\.0\.0\.0\/29/);
    await leases.release("s2");
    assert.deepEqual((await leases.acquire(holder("late"))).ips, ["10.0.0.4"]);
  });

  it("do not hand a freed address out next, also over a restart", async () => {
    let leases = await open(["10.0.0.0/24"]);
    await leases.acquire(holder("a"));
    await leases.acquire(holder("b"));
    await leases.release("a");
    leases = await open(["10.0.0.0/24"]);
    assert.deepEqual((await leases.acquire(holder("c"))).ips, ["10.0.0.4"]);
  });

  it("a crash between the two families' files is completed with the same address", async () => {
    const first = await (await open(["10.0.0.0/24", "fd00::/64"])).acquire(holder("a"));
    await rm(join(directory, "fd00::2"));
    const leases = await open(["10.0.0.0/24", "fd00::/64"]);
    const again = await leases.acquire(holder("a"));
    assert.equal(again.ips[0], first.ips[0]);
    assert.equal(again.ips.length, 2);
  });

  it("that were cut short are dropped, with the temporary files", async () => {
    await writeFile(join(directory, "10.0.0.9"), "");
    await writeFile(join(directory, "10.0.0.8.tmp"), "{");
    const leases = await open(["10.0.0.0/24"]);
    assert.deepEqual([...leases.values()], []);
    assert.deepEqual(await readdir(directory), []);
  });
});
