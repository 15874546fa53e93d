import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { proxyDefaults } from "../../../src/config/agent-config.ts";
import type { ConntrackSettings } from "../../../src/config/types.ts";
import type { Logger } from "../../../src/lib/log.ts";
import {
  applyConntrackSettings,
  type ConntrackIO,
  conntrackIsLiberal,
  conntrackMax,
} from "../../../src/proxy/conntrack-settings.ts";

const at = "/proc/sys/net/netfilter/nf_conntrack_";
const hashsize = "/sys/module/nf_conntrack/parameters/hashsize";

/** A kernel with these values; writing to what is in `locked` is refused. */
function kernel(values: Readonly<Record<string, string>>, locked: readonly string[] = []) {
  const files = new Map(Object.entries(values));
  const written: string[] = [];
  const io: ConntrackIO = {
    cores: 2,
    read: async (path) => Promise.resolve(files.get(path)),
    write: async (path, text) => {
      if (locked.includes(path)) throw Object.assign(new Error("no"), { code: "EACCES" });
      files.set(path, text);
      written.push(`${path.replace(at, "")}=${text}`);
      return Promise.resolve();
    },
  };
  return { io, written };
}

function recorder() {
  const lines: string[] = [];
  const logger: Logger = {
    log: (level, msg) => {
      lines.push(`${level} ${msg}`);
    },
    child: () => logger,
  };
  return { logger, lines };
}

const upstream: ConntrackSettings = {
  maxPerCore: 32_768,
  min: 131_072,
  tcpEstablishedTimeoutMs: 86_400_000,
  tcpCloseWaitTimeoutMs: 3_600_000,
  tcpBeLiberal: false,
  udpTimeoutMs: 0,
  udpStreamTimeoutMs: 0,
};

const asBooted = {
  [`${at}max`]: "65536\n",
  [`${at}tcp_timeout_established`]: "432000\n",
  [`${at}tcp_timeout_close_wait`]: "60\n",
  [`${at}tcp_be_liberal`]: "0\n",
  [`${at}udp_timeout`]: "30\n",
  [`${at}udp_timeout_stream`]: "120\n",
  [hashsize]: "16384\n",
};

describe("the number of tracked connections", () => {
  const cases: readonly (readonly [
    maxPerCore: number,
    min: number,
    cores: number,
    number | undefined,
  ])[] = [
    [32_768, 131_072, 2, 131_072],
    [32_768, 131_072, 8, 262_144],
    [32_768, 0, 2, 65_536],
    [32_768, 131_072, 128, 1_048_576],
    [0, 131_072, 8, undefined],
  ];
  for (const [maxPerCore, min, cores, expected] of cases) {
    test(`${maxPerCore} for each of ${cores}, at least ${min}`, () => {
      assert.equal(conntrackMax({ maxPerCore, min }, cores), expected);
    });
  }
});

describe("settings of connection tracking", () => {
  test("upstream's defaults", async () => {
    const { io, written } = kernel(asBooted);
    const { logger, lines } = recorder();
    assert.deepEqual(await applyConntrackSettings(upstream, io, logger), []);
    assert.deepEqual(written, [
      "max=131072",
      `${hashsize}=32768`,
      "tcp_timeout_established=86400",
      "tcp_timeout_close_wait=3600",
    ]);
    assert.equal(lines.length, 4);
    // A second start finds everything as it should be.
    assert.deepEqual(await applyConntrackSettings(upstream, io, logger), []);
    assert.equal(written.length, 4);
    assert.equal(lines.length, 4);
  });

  test("nothing is touched where nobody said anything", async () => {
    const { io, written } = kernel(asBooted);
    await applyConntrackSettings(proxyDefaults.conntrack, io, recorder().logger);
    assert.deepEqual(written, []);
  });

  test("all that can be said", async () => {
    const { io, written } = kernel(asBooted);
    const all = {
      ...upstream,
      maxPerCore: 0,
      tcpBeLiberal: true,
      udpTimeoutMs: 10_500,
      udpStreamTimeoutMs: 200,
    };
    await applyConntrackSettings(all, io, recorder().logger);
    assert.deepEqual(written, [
      "tcp_timeout_established=86400",
      "tcp_timeout_close_wait=3600",
      "udp_timeout=10",
      "udp_timeout_stream=1",
      "tcp_be_liberal=1",
    ]);
    assert.equal(await conntrackIsLiberal(io), true);
  });

  test("a kernel that tracks more connections goes on, unless somebody said how many", async () => {
    const more = { ...asBooted, [`${at}max`]: "262144\n", [hashsize]: "262144\n" };
    const unsaid = kernel(more);
    const said = kernel(more);
    await applyConntrackSettings({ ...upstream, onlyRaiseMax: true }, unsaid.io, recorder().logger);
    await applyConntrackSettings(upstream, said.io, recorder().logger);
    assert.equal(
      unsaid.written.some((line) => line.startsWith("max=")),
      false,
    );
    assert.equal(said.written[0], "max=131072");
    const fewer = kernel(asBooted);
    await applyConntrackSettings({ ...upstream, onlyRaiseMax: true }, fewer.io, recorder().logger);
    assert.equal(fewer.written[0], "max=131072");
  });

  test("a larger hash table stays", async () => {
    const { io, written } = kernel({ ...asBooted, [hashsize]: "65536\n" });
    await applyConntrackSettings(upstream, io, recorder().logger);
    assert.equal(
      written.some((line) => line.startsWith(hashsize)),
      false,
    );
  });

  test("what may not be written is told, and the rest is done", async () => {
    const { io, written } = kernel(asBooted, [`${at}max`]);
    const { logger, lines } = recorder();
    assert.deepEqual(await applyConntrackSettings(upstream, io, logger), [
      "net.netfilter.nf_conntrack_max is 65536 and cannot be set to 131072 (EACCES): set it on the host, or leave it alone with conntrack.maxPerCore: 0",
    ]);
    assert.deepEqual(written, ["tcp_timeout_established=86400", "tcp_timeout_close_wait=3600"]);
    assert.equal(lines.at(-1), "warn connection tracking is not as configured");
  });

  test("a hash table that may not be written is told", async () => {
    const { io } = kernel(asBooted, [hashsize]);
    const [trouble = ""] = await applyConntrackSettings(upstream, io, recorder().logger);
    assert.match(trouble, /hashsize is 16384 and cannot be set to 32768 \(EACCES\)/);
  });

  test("a kernel that does not track connections yet", async () => {
    const { io, written } = kernel({});
    const troubles = await applyConntrackSettings(upstream, io, recorder().logger);
    assert.equal(troubles.length, 3);
    assert.match(troubles[0] ?? "", /nf_conntrack_max is not there \(conntrack.maxPerCore\)/);
    assert.deepEqual(written, []);
    assert.equal(await conntrackIsLiberal(io), false);
  });

  test("the host's own liberal mode counts", async () => {
    assert.equal(await conntrackIsLiberal(kernel({ [`${at}tcp_be_liberal`]: "1\n" }).io), true);
    assert.equal(await conntrackIsLiberal(kernel(asBooted).io), false);
  });
});
