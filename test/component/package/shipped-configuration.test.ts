import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { root } from "../../../scripts/package/bundle.ts";
import { conffiles } from "../../../scripts/package/product.ts";
import { type Configuration, readConfiguration } from "../../../src/config/configuration.ts";

const shipped = join(root, "packaging/etc/config.yaml");

/** The file with every example in it made valid: examples are behind "#" alone, explanations behind "# ". */
function examplesTold(text: string): string {
  return text.replaceAll(/^#(?! \S)/gm, "");
}

function read(file: string): Promise<Configuration> {
  return readConfiguration({ files: [file], directory: undefined, flags: [] });
}

describe("/etc/remora/config.yaml as it is shipped", () => {
  let directory = "";
  before(async () => (directory = await mkdtemp(join(tmpdir(), "remora-test-"))));
  after(() => rm(directory, { recursive: true, force: true }));

  test("says nothing, and that correctly", async () => {
    const { remarks, settings } = await read(shipped);
    assert.deepEqual(remarks, []);
    const told = Object.values(settings).flatMap((each) =>
      [...each.values()].filter(({ origin }) => origin !== undefined),
    );
    assert.deepEqual(told, []);
  });

  test("its examples are understood, and have an effect", async () => {
    const file = join(directory, "config.yaml");
    await writeFile(file, examplesTold(await readFile(shipped, "utf8")));
    const { remarks, remora, kubelet, proxy } = await read(file);
    assert.deepEqual(remarks, []);
    assert.equal(remora.kubeconfig, "/etc/remora/node.conf");
    assert.deepEqual(remora.nodeIPs, ["192.0.2.10"]);
    assert.deepEqual(remora.nodeLabels, { "topology.kubernetes.io/zone": "cellar" });
    assert.equal(kubelet.maxPods, 60);
    assert.equal(proxy.mode, "nftables");
  });
});

describe("files of the package that people change", () => {
  test("each is one that dpkg asks about before it replaces it", async () => {
    const units = ["remora.service", "remora-up.service"];
    for (const unit of units) {
      const text = await readFile(join(root, "systemd", unit), "utf8");
      const named = [...text.matchAll(/\/(etc\/remora\/[a-z.]+)/g)].map(([, path]) => path ?? "");
      assert.ok(named.length > 0, unit);
      for (const path of named) assert.ok(conffiles.includes(path), `${unit}: ${path}`);
    }
  });
});
