import assert from "node:assert/strict";
import { appendFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";

import { type Change, Ledger, readLedger } from "../../../src/agent/ledger/ledger.ts";
import {
  changedSettings,
  ownSettings,
  settingsWitness,
  wentWithBoot,
  witnessedConntrack,
} from "../../../src/agent/ledger/machine-settings.ts";
import { temporaryDirectory } from "./temporary-directory.ts";

const kernel = { boot: "b1", namespace: "net:[1]" };
const never = (): boolean => false;
const forwarding = {
  kind: "sysctl",
  name: "net/ipv4/ip_forward",
  former: "0",
  value: "1",
  ...kernel,
} as const;

describe("the ledger", () => {
  test("holds each change once, over restarts, and a line that a crash cut off is none", async (t) => {
    const path = join(await temporaryDirectory(t), "ledger.jsonl");
    const kubeconfig = { kind: "kubeconfig", path: "/root/.kube/config", uid: 0, gid: 0 } as const;
    const first = await Ledger.open(path, never);
    await Promise.all([
      first.append(kubeconfig),
      first.append(forwarding),
      first.append(kubeconfig),
    ]);
    assert.deepEqual(await readLedger(path), [kubeconfig, forwarding]);
    await appendFile(path, '{"kind":"package","na');
    const second = await Ledger.open(path, never);
    await second.append(forwarding);
    await second.append({ kind: "directory", path: "/root/.kube" });
    const all = [kubeconfig, forwarding, { kind: "directory", path: "/root/.kube" }];
    assert.deepEqual(await readLedger(path), all);
    assert.equal((await readFile(path, "utf8")).split("\n").length, 5, "header, three, end");
  });

  test("settings of an earlier boot are left out at the next start", async (t) => {
    const path = join(await temporaryDirectory(t), "ledger.jsonl");
    const old = await Ledger.open(path, never);
    await old.append({ ...forwarding, boot: "b0" });
    await old.append({ kind: "package", name: "nftables" });
    await Ledger.open(path, wentWithBoot(kernel));
    assert.deepEqual(await readLedger(path), [{ kind: "package", name: "nftables" }]);
  });

  test("one of a newer version is refused, and not changed", async (t) => {
    const path = join(await temporaryDirectory(t), "ledger.jsonl");
    const text = `${JSON.stringify({ remora: "ledger", schema: 2 })}\n{"kind":"moon"}\n`;
    await writeFile(path, text);
    await assert.rejects(Ledger.open(path, never), {
      name: "SetupError",
      message: `${path} was written by a newer version of remora (ledger schema 2, this one knows 1): use that version or newer`,
    });
    assert.equal(await readFile(path, "utf8"), text);
  });
});

describe("settings of the machine", () => {
  const change = (name: string, former: string, value: string): Change => ({
    ...forwarding,
    name,
    former,
    value,
  });

  test("what was before the first change of ours counts, and only that of this boot and namespace", () => {
    assert.deepEqual(
      changedSettings(
        [
          change("a", "0", "1"),
          change("b", "x", "y"),
          // Somebody had taken it back meanwhile, to something else.
          change("a", "2", "1"),
          { ...forwarding, name: "c", boot: "b0" },
          { ...forwarding, name: "d", namespace: "net:[2]" },
        ],
        kernel,
      ),
      [
        { name: "b", former: "x", value: "y" },
        { name: "a", former: "0", value: "1" },
      ],
    );
  });

  test("are given back where they still are as we made them", async (t) => {
    const directory = await temporaryDirectory(t);
    const root = join(directory, "sys");
    await mkdir(join(root, "net"), { recursive: true });
    const path = join(directory, "ledger.jsonl");
    const witness = settingsWitness(await Ledger.open(path, never), kernel);
    for (const name of ["kept", "changed", "gone"]) await witness.sysctl(name, "0", "1");
    await writeFile(join(root, "net/kept"), "1\n");
    await writeFile(join(root, "net/changed"), "2\n");
    const settings = ownSettings(await readLedger(path), kernel, root);
    const signal = new AbortController().signal;
    assert.deepEqual(await settings.left(signal), ["net.kept = 1, before: 0"]);
    await settings.remove(signal);
    assert.deepEqual(await settings.left(signal), []);
    assert.equal(await readFile(join(root, "net/kept"), "utf8"), "0");
    assert.equal(await readFile(join(root, "net/changed"), "utf8"), "2\n");
  });

  test("of connection tracking are written down first, the size of the hash table as the kernel made it", async (t) => {
    const path = join(await temporaryDirectory(t), "ledger.jsonl");
    const hashSize = "/sys/module/nf_conntrack/parameters/hashsize";
    const max = "/proc/sys/net/netfilter/nf_conntrack_max";
    const values = new Map([
      [hashSize, "65536\n"],
      [max, "262144\n"],
    ]);
    const written: string[] = [];
    const io = witnessedConntrack(
      {
        cores: 2,
        read: (name) => Promise.resolve(values.get(name)),
        write: async (name, text) => {
          const noted = await readLedger(path);
          assert.ok(noted.some((each) => each.kind === "sysctl" && each.value === text));
          written.push(name);
          values.set(name, name === hashSize ? "70144\n" : `${text}\n`);
        },
      },
      settingsWitness(await Ledger.open(path, never), kernel),
    );
    await io.write(max, "280000");
    await io.write(hashSize, "70000");
    assert.deepEqual(written, [max, hashSize]);
    assert.deepEqual(changedSettings(await readLedger(path), kernel), [
      { name: hashSize, former: "65536", value: "70144" },
      { name: "net/netfilter/nf_conntrack_max", former: "262144", value: "280000" },
    ]);
  });
});
