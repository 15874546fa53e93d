import assert from "node:assert/strict";
import { appendFile, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import type { Clock } from "../../../src/lib/clock.ts";
import type { Logger } from "../../../src/lib/log.ts";
import {
  AddressWatch,
  type AddressWatchOptions,
  type InterfaceAddress,
} from "../../../src/netfilter/address-watch.ts";

let directory = "";
let serial = 0;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "remora-addresses-"));
});

after(async () => rm(directory, { recursive: true, force: true }));

const onEth0 = (address: string): InterfaceAddress => ({
  interfaceName: "eth0",
  address,
  temporary: false,
  doubtful: false,
});

/** A watch whose `ip monitor` prints what is appended to a file. */
async function setUp(
  list: () => Promise<readonly string[]>,
  change: Partial<AddressWatchOptions> = {},
) {
  serial += 1;
  const lines = join(directory, `monitor-${serial}`);
  await writeFile(lines, "");
  const warnings: string[] = [];
  const sleeps: number[] = [];
  const logger: Logger = {
    log: (_, msg) => {
      warnings.push(msg);
    },
    child: () => logger,
  };
  const clock: Clock = {
    now: () => 0,
    monotonic: () => 0,
    sleep: async (ms) => {
      sleeps.push(ms);
      return Promise.resolve();
    },
  };
  const watch = new AddressWatch({
    clock,
    logger,
    random: () => 0.5,
    list: async () => (await list()).map(onEth0),
    monitor: ["tail", "-n", "+1", "-f", lines],
    ...change,
  });
  const told: (readonly string[])[] = [];
  let next = Promise.withResolvers<void>();
  watch.subscribe((addresses) => {
    told.push(addresses);
    next.resolve();
    next = Promise.withResolvers();
  });
  return {
    watch,
    told,
    warnings,
    sleeps,
    once: () => next.promise,
    /** tail says so on stderr, and goes on: as ip does after more changes than fit into its buffer. */
    loseLines: async () => truncate(lines),
    somethingChanges: async () => appendFile(lines, "4: eth0 inet 192.0.2.9/24\n"),
  };
}

describe("a watch on the machine's addresses", () => {
  test("tells them at the start, and after a change when they differ", async () => {
    let addresses = ["192.0.2.1"];
    let reads = 0;
    const { watch, told, once, somethingChanges } = await setUp(async () => {
      reads += 1;
      return Promise.resolve(addresses);
    });
    const stop = new AbortController();
    const running = watch.run(stop.signal);
    await watch.whenKnown(stop.signal);
    assert.deepEqual([told, watch.addresses], [[["192.0.2.1"]], ["192.0.2.1"]]);
    const readBefore = reads;
    const second = once();
    addresses = ["192.0.2.1", "192.0.2.9"];
    await somethingChanges();
    await second;
    assert.ok(reads > readBefore);
    assert.deepEqual(told.slice(1), [["192.0.2.1", "192.0.2.9"]]);
    stop.abort();
    await running;
    // A change of an address that nobody sees, such as of its lifetime, is no news.
    assert.equal(told.length, 2);
  });

  test("lines go to who wants them; what the monitor lost is read", async () => {
    let addresses = ["192.0.2.1"];
    const { watch, told, once, somethingChanges, loseLines } = await setUp(async () =>
      Promise.resolve(addresses),
    );
    const heard: (string | undefined)[] = [];
    let disturbed = Promise.withResolvers<void>();
    watch.onLine((line) => heard.push(line));
    watch.onDisturbed(() => disturbed.resolve());
    const stop = new AbortController();
    const running = watch.run(stop.signal);
    await watch.whenKnown(stop.signal);
    await disturbed.promise;
    assert.deepEqual([heard, told], [[undefined], [["192.0.2.1"]]]);
    disturbed = Promise.withResolvers();
    await somethingChanges();
    await disturbed.promise;
    // No other address: who follows more than addresses is told all the same.
    assert.deepEqual(heard.slice(1), ["4: eth0 inet 192.0.2.9/24"]);
    assert.equal(told.length, 1);
    addresses = ["192.0.2.1", "192.0.2.9"];
    const second = once();
    await loseLines();
    await second;
    assert.equal(heard.at(-1), undefined);
    assert.deepEqual(told.at(-1), addresses);
    stop.abort();
    await running;
  });

  test("a monitor that ends is started again, and what happened meanwhile is told", async () => {
    let reads = 0;
    const { watch, told, sleeps, warnings } = await setUp(
      async () => {
        reads += 1;
        if (reads === 3) stop.abort();
        return Promise.resolve([`192.0.2.${reads}`]);
      },
      { monitor: ["false"] },
    );
    const stop = new AbortController();
    await watch.run(stop.signal);
    assert.deepEqual(told.slice(0, 2), [["192.0.2.1"], ["192.0.2.2"]]);
    assert.ok(sleeps.length >= 2 && (sleeps[1] ?? 0) > (sleeps[0] ?? 0), sleeps.join());
    assert.equal(warnings[0], "ip monitor ended; addresses are read and it is started again");
  });

  test("addresses that cannot be read hold nobody up, and are told when they can", async () => {
    let broken = true;
    const { watch, told, warnings, once, somethingChanges } = await setUp(
      async () => {
        if (broken) throw new Error("no ip");
        return Promise.resolve(["192.0.2.1", "192.0.2.2"]);
      },
      { fallback: () => [onEth0("192.0.2.1")] },
    );
    const stop = new AbortController();
    const running = watch.run(stop.signal);
    await watch.whenKnown(stop.signal);
    assert.deepEqual(told, [["192.0.2.1"]]);
    assert.deepEqual(warnings, ["addresses of this machine cannot be read"]);
    broken = false;
    const second = once();
    await somethingChanges();
    await second;
    assert.deepEqual(told.slice(1), [["192.0.2.1", "192.0.2.2"]]);
    stop.abort();
    await running;
  });

  test("a wait for them can be given up", async () => {
    const { watch } = await setUp(async () => Promise.resolve([]));
    const stop = new AbortController();
    await assert.rejects(watch.whenKnown(AbortSignal.abort()), { name: "AbortError" });
    const waiting = watch.whenKnown(stop.signal);
    stop.abort();
    await assert.rejects(waiting, { name: "AbortError" });
  });
});
