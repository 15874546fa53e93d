import assert from "node:assert/strict";
import { mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";

import { DnsLife } from "../../../src/agent/dns-life.ts";
import type { DnsThread, DnsThreadOptions } from "../../../src/agent/dns-thread.ts";
import type { NameServerSettings } from "../../../src/dns/types.ts";
import { type Logger, silentLogger } from "../../../src/lib/log.ts";
import { inTemporary } from "../../fakes/temporary.ts";
import { FakeThread } from "./fake-thread.ts";

const settings: NameServerSettings = {
  domain: "cluster.local",
  addresses: ["10.96.0.10", "fd00::a"],
  port: 53,
  ownNetworks: ["10.96.0.0/16"],
  resolvConf: "/etc/resolv.conf",
};

class Fixture {
  readonly threads: FakeThread[] = [];
  readonly warnings: string[] = [];
  readonly path: string;
  readonly life: DnsLife;

  constructor(rootDir: string) {
    this.path = join(rootDir, "dns", "settings.json");
    const logger: Logger = {
      log: (level, msg) => level === "warn" && this.warnings.push(msg),
      child: () => logger,
    };
    const startThread = (options: DnsThreadOptions): DnsThread => {
      const thread = new FakeThread(options);
      this.threads.push(thread);
      return thread;
    };
    this.life = new DnsLife({ rootDir, startThread, logger });
  }

  start(wanted = settings, onListening = (): void => undefined): Promise<DnsThread> {
    return this.life.startThread({ settings: wanted, logger: silentLogger, onListening });
  }
}

/** A directory in which the name server ran with these settings. */
async function ranBefore(rootDir: string): Promise<void> {
  const { life } = new Fixture(rootDir);
  await life.begin();
  await life.remember(settings);
  await life.end();
}

describe("the life of the name server's thread", () => {
  it("begins with the agent when it ran before, and goes on for who decides the same", () =>
    inTemporary(async (rootDir) => {
      await ranBefore(rootDir);
      const fixture = new Fixture(rootDir);
      await fixture.life.begin();
      const [early] = fixture.threads;
      assert.ok(early !== undefined);
      const { counts, recordsFile, ...told } = early.settings;
      assert.deepEqual(told, settings);
      assert.equal(recordsFile, join(rootDir, "dns", "records"));
      assert.equal(counts, fixture.life.counts.buffer);
      assert.deepEqual(fixture.life.remembered, settings.addresses);
      let listening = 0;
      const thread = await fixture.start(settings, () => (listening += 1));
      assert.equal(thread, early);
      assert.equal(listening, 0);
      early.options.onListening();
      assert.equal(listening, 1);
      assert.deepEqual([fixture.threads.length, early.stopped], [1, false]);
      await fixture.life.end();
      assert.ok(early.stopped);
    }));

  it("who takes it over late hears at once that it answers", () =>
    inTemporary(async (rootDir) => {
      await ranBefore(rootDir);
      const fixture = new Fixture(rootDir);
      await fixture.life.begin();
      fixture.threads[0]?.options.onListening();
      let listening = 0;
      await fixture.start(settings, () => (listening += 1));
      assert.equal(listening, 1);
      await fixture.life.end();
    }));

  it("another one takes its place when the settings are others, or when it died", () =>
    inTemporary(async (rootDir) => {
      await ranBefore(rootDir);
      for (const died of [false, true]) {
        const fixture = new Fixture(rootDir);
        await fixture.life.begin();
        const [early] = fixture.threads;
        if (died) early?.crash();
        // Whoever hears of the end has heard.
        await new Promise(setImmediate);
        const next = await fixture.start(died ? settings : { ...settings, domain: "other.local" });
        assert.notEqual(next, early);
        assert.equal(early?.stopped, !died);
        assert.equal(fixture.threads.length, 2);
        await fixture.life.end();
        assert.ok(fixture.threads[1]?.stopped);
      }
    }));

  it("begins with nothing where it never ran, or shall not run any more", () =>
    inTemporary(async (rootDir) => {
      const fixture = new Fixture(rootDir);
      await fixture.life.begin();
      assert.deepEqual([fixture.threads, fixture.life.remembered], [[], []]);
      await fixture.life.remember(settings);
      assert.equal((await stat(fixture.path)).mode & 0o777, 0o600);
      await fixture.life.forget();
      await assert.rejects(stat(fixture.path), /ENOENT/);
      const next = new Fixture(rootDir);
      await next.life.begin();
      assert.deepEqual(next.threads, []);
    }));

  it("does not begin again after a start that did not want it", () =>
    inTemporary(async (rootDir) => {
      await ranBefore(rootDir);
      const unwanted = new Fixture(rootDir);
      await unwanted.life.forget();
      const next = new Fixture(rootDir);
      await next.life.begin();
      assert.deepEqual(next.threads, []);
    }));

  it("one that nobody wants any more is ended", () =>
    inTemporary(async (rootDir) => {
      await ranBefore(rootDir);
      const fixture = new Fixture(rootDir);
      await fixture.life.begin();
      await fixture.life.forget();
      assert.ok(fixture.threads[0]?.stopped);
      assert.deepEqual(fixture.life.remembered, []);
    }));

  it("settings that are damaged or of another version are not followed", () =>
    inTemporary(async (rootDir) => {
      await ranBefore(rootDir);
      const fixture = new Fixture(rootDir);
      const good = await readFile(fixture.path, "utf8");
      const texts = [
        good.slice(0, -9),
        "[]",
        good.replace('"version":1', '"version":2'),
        good.replace('"port":53', '"port":"53"'),
        good.replace('["10.96.0.10","fd00::a"]', "[7]"),
      ];
      await mkdir(join(rootDir, "dns"), { recursive: true });
      for (const text of texts) {
        assert.notEqual(text, good);
        await writeFile(fixture.path, text);
        await fixture.life.begin();
      }
      assert.deepEqual(fixture.threads, []);
      assert.equal(fixture.warnings.length, texts.length);
    }));
});
