import assert from "node:assert/strict";
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";

import { parseDnsService } from "../../../src/dns/parse.ts";
import { decodeRecords, encodeRecords, type Records } from "../../../src/dns/records-file.ts";
import { RecordsKeeper } from "../../../src/dns/records-keeper.ts";
import type { Clock } from "../../../src/lib/clock.ts";
import type { Logger } from "../../../src/lib/log.ts";
import { inTemporary } from "../../fakes/temporary.ts";
import { ManualClock, until } from "../api/manual-clock.ts";

const domain = "cluster.local";

function records(...names: readonly string[]): Records {
  const services = names.map((name) =>
    parseDnsService({ metadata: { namespace: "default", name }, spec: { clusterIP: "10.96.0.7" } }),
  );
  return { services, slices: [], namespaces: ["default"] };
}

class Fixture {
  readonly clock = new ManualClock();
  readonly logged: string[] = [];
  readonly path: string;
  readonly keeper: RecordsKeeper;
  readonly stop = new AbortController();
  contents: Records | undefined = records("web");
  #done: Promise<void> = Promise.resolve();

  constructor(directory: string) {
    this.path = join(directory, "dns", "records");
    const logger: Logger = { log: (_level, msg) => this.logged.push(msg), child: () => logger };
    // Only what takes time is waited for.
    const clock: Clock = {
      now: () => this.clock.now(),
      monotonic: () => this.clock.monotonic(),
      sleep: (ms, signal) => (ms === 0 ? Promise.resolve() : this.clock.sleep(ms, signal)),
    };
    const { path } = this;
    this.keeper = new RecordsKeeper({ path, domain, contents: () => this.contents, clock, logger });
  }

  run(): void {
    this.#done = this.keeper.run(this.stop.signal);
  }

  async end(): Promise<void> {
    this.stop.abort();
    await this.#done;
  }

  /** Until the keeper waits for `ms`, or longer. */
  async waiting(times: number): Promise<number> {
    await until(() => this.clock.sleeps.length >= times && this.clock.sleeping, "a wait");
    return this.clock.sleeps.at(-1) ?? 0;
  }

  async names(): Promise<readonly string[]> {
    const { update } = decodeRecords(await readFile(this.path), domain);
    return update.services.map(({ name }) => name);
  }
}

describe("the last records", () => {
  it("are written a moment after a change, for nobody else to read, and can be read again", () =>
    inTemporary(async (directory) => {
      const fixture = new Fixture(directory);
      assert.equal(await fixture.keeper.read(), undefined);
      fixture.run();
      fixture.keeper.note();
      assert.equal(await fixture.waiting(1), 2000);
      await assert.rejects(stat(fixture.path), /ENOENT/);
      fixture.contents = records("web", "later");
      fixture.keeper.note();
      fixture.clock.advance(2000);
      await fixture.waiting(2);
      assert.deepEqual(await fixture.names(), ["web", "later"]);
      assert.equal((await stat(fixture.path)).mode & 0o777, 0o600);
      const stored = await fixture.keeper.read();
      assert.equal(stored?.writtenAt, fixture.clock.now());
      await fixture.end();
      assert.deepEqual([await readdir(join(directory, "dns")), fixture.logged], [["records"], []]);
    }));

  it("are not written again without a change, and not more often than every few seconds", () =>
    inTemporary(async (directory) => {
      const fixture = new Fixture(directory);
      fixture.run();
      fixture.keeper.note();
      await fixture.waiting(1);
      fixture.clock.advance(2000);
      assert.equal(await fixture.waiting(2), 3000);
      fixture.contents = records("other");
      fixture.keeper.note();
      assert.deepEqual(await fixture.names(), ["web"]);
      fixture.clock.advance(3000);
      assert.equal(await fixture.waiting(3), 2000);
      fixture.clock.advance(2000);
      await fixture.waiting(4);
      assert.deepEqual(await fixture.names(), ["other"]);
      fixture.clock.advance(600_000);
      await until(() => !fixture.clock.sleeping);
      assert.equal(fixture.clock.sleeps.length, 4);
      await fixture.end();
    }));

  it("of a large cluster are written more rarely", () =>
    inTemporary(async (directory) => {
      const fixture = new Fixture(directory);
      fixture.contents = records(...Array.from({ length: 10_000 }, (_, index) => `s${index}`));
      fixture.run();
      fixture.keeper.note();
      await fixture.waiting(1);
      fixture.clock.advance(2000);
      const restMs = await fixture.waiting(2);
      const { size } = await stat(fixture.path);
      assert.ok(restMs > 15_000 && size / (restMs + 2000) < 51, `${size} bytes in ${restMs}`);
      await fixture.end();
    }));

  it("are written once more at the end, and only when they changed", () =>
    inTemporary(async (directory) => {
      const fixture = new Fixture(directory);
      fixture.run();
      fixture.keeper.note();
      await fixture.waiting(1);
      await fixture.end();
      assert.deepEqual(await fixture.names(), ["web"]);
      const before = await stat(fixture.path);
      const again = new Fixture(directory);
      again.run();
      await again.end();
      assert.equal((await stat(fixture.path)).ino, before.ino);
    }));

  it("are not written while nothing is known", () =>
    inTemporary(async (directory) => {
      const fixture = new Fixture(directory);
      fixture.contents = undefined;
      fixture.run();
      fixture.keeper.note();
      await fixture.end();
      await assert.rejects(stat(fixture.path), /ENOENT/);
    }));

  it("that are damaged are nobody's records, with a word", () =>
    inTemporary(async (directory) => {
      const fixture = new Fixture(directory);
      const head = { writtenAt: 0, domain };
      const bytes = Buffer.concat([...encodeRecords(records("web"), head)]);
      await mkdir(join(directory, "dns"));
      await writeFile(fixture.path, bytes.subarray(0, -9));
      assert.equal(await fixture.keeper.read(), undefined);
      assert.deepEqual(fixture.logged, ["the last records of cluster DNS cannot be used"]);
      await writeFile(fixture.path, bytes);
      assert.ok((await fixture.keeper.read()) !== undefined);
    }));

  it("stay as they are when they cannot be written; it is tried again", () =>
    inTemporary(async (directory) => {
      await writeFile(join(directory, "dns"), "a file where the directory should be");
      const fixture = new Fixture(directory);
      fixture.run();
      fixture.keeper.note();
      await fixture.waiting(1);
      fixture.clock.advance(2000);
      assert.equal(await fixture.waiting(2), 118_000);
      fixture.clock.advance(118_000);
      await fixture.waiting(3);
      fixture.clock.advance(2000);
      await fixture.waiting(4);
      assert.equal(fixture.logged.length, 2);
      await fixture.end();
    }));

  it("what a crash left half written goes", () =>
    inTemporary(async (directory) => {
      const fixture = new Fixture(directory);
      await mkdir(join(directory, "dns"));
      for (const name of ["records.abc.tmp", "records", "other.tmp"]) {
        await writeFile(join(directory, "dns", name), "x");
      }
      fixture.run();
      await fixture.end();
      const left = await readdir(join(directory, "dns"));
      assert.deepEqual(new Set(left), new Set(["other.tmp", "records"]));
    }));
});
