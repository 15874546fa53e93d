import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  parseBlkio,
  parseCount,
  parseIoStat,
  parseLimit,
  parseNetDev,
  parsePressure,
  parseProcCgroup,
  statValue,
} from "../../../src/kubelet/stats/cgroup-text.ts";
import { writableLayer } from "../../../src/kubelet/stats/disk-targets.ts";

describe("cgroupfs and procfs", () => {
  test("a key is matched whole, on the first line, in the middle and at the end", () => {
    const text = "anon 1\nfile 2\ninactive_file 3\nfile_mapped 4";
    assert.equal(statValue(text, "anon"), 1);
    assert.equal(statValue(text, "file"), 2);
    assert.equal(statValue(text, "inactive_file"), 3);
    assert.equal(statValue(text, "file_mapped"), 4);
    assert.equal(statValue(text, "mapped"), undefined);
    assert.equal(statValue("", "anon"), undefined);
  });

  test("no limit is undefined in either version's words", () => {
    assert.equal(parseLimit("max\n"), undefined);
    assert.equal(parseLimit("9223372036854771712\n"), undefined);
    assert.equal(parseLimit("-1\n"), undefined);
    assert.equal(parseLimit(undefined), undefined);
    assert.equal(parseLimit("80000000\n"), 80_000_000);
    assert.equal(parseLimit("0\n"), 0);
  });

  test("an empty file is no zero", () => {
    assert.equal(parseCount(""), undefined);
    assert.equal(parseCount("0\n"), 0);
  });

  test("pressure is in percent, its total in nanoseconds; old kernels have no full line for cpu", () => {
    const some = "some avg10=1.50 avg60=0.20 avg300=0.03 total=42\n";
    assert.deepEqual(parsePressure(some), {
      some: { avg10: 1.5, avg60: 0.2, avg300: 0.03, totalNs: 42_000 },
      full: { avg10: 0, avg60: 0, avg300: 0, totalNs: 0 },
    });
    assert.equal(
      parsePressure(`${some}full avg10=0.10 avg60=0 avg300=0 total=7\n`)?.full.totalNs,
      7000,
    );
    assert.equal(parsePressure(undefined), undefined);
  });

  test("reads and writes per device, v2", () => {
    const text =
      "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=0 rios=1 wios=0\n";
    assert.deepEqual(parseIoStat(text), [
      { major: 254, minor: 0, readBytes: 4096, writeBytes: 8192, reads: 1, writes: 2 },
      { major: 8, minor: 16, readBytes: 1, writeBytes: 0, reads: 1, writes: 0 },
    ]);
  });

  test("reads and writes per device, v1; totals are no device", () => {
    const bytes = "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 1\nTotal 12288\n";
    const operations = "254:0 Read 1\n254:0 Write 2\nTotal 3\n";
    assert.deepEqual(parseBlkio(bytes, operations), [
      { major: 254, minor: 0, readBytes: 4096, writeBytes: 8192, reads: 1, writes: 2 },
    ]);
    assert.deepEqual(parseBlkio("Total 0\n", "Total 0\n"), []);
  });

  test("loopback and the host's ends of pods' links are no interfaces of the node", () => {
    const line = (name: string): string => `  ${name}: 10 1 2 3 0 0 0 0 20 4 5 6 0 0 0 0\n`;
    const text = `Inter-|\n face |\n${["lo", "eth0", "vethab", "docker0", "rmv0123456789a", "rmvpn", "remora0"].map(line).join("")}`;
    assert.deepEqual(
      parseNetDev(text).map(({ name }) => name),
      ["eth0", "rmvpn", "remora0"],
    );
    assert.deepEqual(parseNetDev(text)[0], {
      name: "eth0",
      rxBytes: 10,
      rxPackets: 1,
      rxErrors: 2,
      rxDropped: 3,
      txBytes: 20,
      txPackets: 4,
      txErrors: 5,
      txDropped: 6,
    });
  });

  test("joint controllers are each found, and a path may hold colons", () => {
    const paths = parseProcCgroup("5:cpu,cpuacct:/a:b\n1:name=systemd:/s\n0::/u\n");
    assert.equal(paths.get("cpu"), "/a:b");
    assert.equal(paths.get("cpuacct"), "/a:b");
    assert.equal(paths.get(""), "/u");
  });
});

describe("a container's writable layer", () => {
  const line = (options: string): string =>
    `1 2 3:4 / /proc rw - proc proc rw\n5 6 0:50 / / rw,relatime - overlay overlay rw,lowerdir=l/A:l/B,${options}\n`;
  const engine = ["/var/lib/docker"];

  test("is the upper directory of its root", () => {
    const text = line(
      "upperdir=/var/lib/docker/overlay2/x/diff,workdir=/var/lib/docker/overlay2/x/work",
    );
    assert.equal(writableLayer(text, engine), "/var/lib/docker/overlay2/x/diff");
  });

  test("is not what a container has mounted over it from elsewhere", () => {
    assert.equal(writableLayer(line("upperdir=/,workdir=/w"), engine), undefined);
    assert.equal(writableLayer(line("upperdir=/var/lib/dockerx/diff"), engine), undefined);
    assert.equal(writableLayer(line("upperdir=/var/lib/docker/../../etc"), engine), undefined);
  });

  test("is unknown for other filesystems and for a process that has ended", () => {
    assert.equal(writableLayer("5 6 8:1 / / rw - ext4 /dev/sda1 rw\n", engine), undefined);
    assert.equal(writableLayer(undefined, engine), undefined);
  });
});
