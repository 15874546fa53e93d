import assert from "node:assert/strict";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";

import {
  checkRemovable,
  claimStateDirectory,
  markerPath,
  readMarker,
  type StateClaim,
} from "../../../src/agent/ledger/state-marker.ts";
import { temporaryDirectory } from "./temporary-directory.ts";

const up: StateClaim = { mode: "up", nodeName: "n1", version: "1.2.0", now: Date.UTC(2026, 0, 2) };
const run: StateClaim = { ...up, mode: "run" };

async function put(directory: string, ...names: readonly string[]): Promise<void> {
  for (const name of names) {
    await mkdir(dirname(join(directory, name)), { recursive: true });
    await writeFile(join(directory, name), "");
  }
}

describe("a state directory", () => {
  test("is marked before anything is put into it, and remembers who began it", async (t) => {
    const directory = join(await temporaryDirectory(t), "new");
    await claimStateDirectory(directory, up);
    assert.deepEqual(await readdir(directory), ["remora.json"]);
    await claimStateDirectory(directory, { ...up, version: "1.3.0", nodeName: "n2", now: 0 });
    assert.deepEqual(await readMarker(directory), {
      schema: 1,
      mode: "up",
      nodeName: "n2",
      createdBy: "1.2.0",
      version: "1.3.0",
      created: "2026-01-02T00:00:00.000Z",
    });
  });

  test("of a version before the marker is adopted by what only we make", async (t) => {
    for (const [claim, proof] of [
      [up, "control-plane/store.db"],
      [up, "kubelet/places.json"],
      [run, "network/ipam/10.244.0.2"],
      [run, "joined.kubeconfig"],
    ] as const) {
      const directory = join(await temporaryDirectory(t), "old");
      await put(directory, proof, "pods/7/x", "somebody's");
      await claimStateDirectory(directory, claim);
      assert.equal((await readMarker(directory))?.mode, claim.mode, proof);
    }
  });

  test("of somebody else is neither taken nor removed", async (t) => {
    const directory = await temporaryDirectory(t);
    await put(directory, "thesis.tex", ".bashrc", "agent.sock");
    const before = await readdir(directory);
    await assert.rejects(claimStateDirectory(directory, up), {
      message: `${directory} holds something else (.bashrc, thesis.tex) and nothing of remora: choose an empty directory with --state-dir`,
    });
    await assert.rejects(
      checkRemovable(directory, "up", "1"),
      /is not remora's \(it holds \.bashrc/,
    );
    assert.deepEqual(await readdir(directory), before);
  });

  test("with pods of another kubelet is neither taken nor removed; what kubeadm puts there is no reason", async (t) => {
    const directory = await temporaryDirectory(t);
    await put(directory, "config.yaml", "kubeadm-flags.env", "pki/kubelet.crt");
    await mkdir(join(directory, "pods"));
    await claimStateDirectory(directory, run);
    await rm(markerPath(directory));
    await put(directory, "pods/2f/etc-hosts");
    await assert.rejects(
      claimStateDirectory(directory, run),
      /another kubelet's\. Drain this node/,
    );
    await assert.rejects(checkRemovable(directory, "run", "1"), /is not remora's \(it holds pods/);
  });

  test("of a newer version is refused with both versions and the remedy, and nothing is changed", async (t) => {
    const directory = await temporaryDirectory(t);
    await claimStateDirectory(directory, up);
    const newer = { ...(await readMarker(directory)), schema: 2, version: "2.0.1", more: [1] };
    await writeFile(markerPath(directory), JSON.stringify(newer));
    const before = await readFile(markerPath(directory), "utf8");
    const sentence = {
      name: "SetupError",
      message: `${directory} was written by remora 2.0.1 (state schema 2), and this is remora 1.2.0, which knows schema 1: install remora 2.0.1 or newer again; nothing was changed`,
    };
    await assert.rejects(claimStateDirectory(directory, up), sentence);
    await assert.rejects(checkRemovable(directory, "up", "1.2.0"), sentence);
    assert.equal(await readFile(markerPath(directory), "utf8"), before);
  });

  test("of the other mode, or with a damaged marker, is refused", async (t) => {
    const directory = await temporaryDirectory(t);
    await claimStateDirectory(directory, up);
    await assert.rejects(
      claimStateDirectory(directory, run),
      /that of "remora up": give --root-dir/,
    );
    await assert.rejects(checkRemovable(directory, "run", "1"), /give it with --state-dir/);
    await writeFile(markerPath(directory), "{");
    await assert.rejects(claimStateDirectory(directory, up), /remora\.json is damaged/);
  });

  test("that is empty, gone, or half removed may be removed", async (t) => {
    const directory = await temporaryDirectory(t);
    for (const mode of ["up", "run"] as const) {
      await checkRemovable(directory, mode, "1");
      await checkRemovable(join(directory, "gone"), mode, "1");
    }
    await put(directory, "kubelet/pods/1/x", "agent.sock", "setup.jsonl");
    await checkRemovable(directory, "up", "1");
  });
});
