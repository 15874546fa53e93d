import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { PODS } from "../../../src/api/resources.ts";
import { resolvConfTrouble } from "../../../src/kubelet/node/host-resolv-conf.ts";
import { JumpingClock, makeWorld, podManifest } from "./fixture.ts";

async function inDirectory(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "remora-resolv-"));
  try {
    await work(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

test("no pod is made while the node's resolv.conf cannot be read, whatever its dnsPolicy", async () => {
  await inDirectory(async (directory) => {
    const resolvConf = join(directory, "resolv.conf");
    const clock = new JumpingClock();
    const world = await makeWorld({ clock, settings: { resolvConf } });
    try {
      world.start();
      world.api.put(PODS, podManifest("web"));
      world.api.put(
        PODS,
        podManifest("own", { dnsPolicy: "None", dnsConfig: { nameservers: ["192.0.2.1"] } }),
      );
      for (const name of ["web", "own"]) {
        const event = await world.until(`the event of ${name}`, () =>
          world.events.find(
            ({ reason, target }) => reason === "FailedCreatePodSandBox" && target.name === name,
          ),
        );
        assert.equal(
          event.message,
          `Failed to create pod sandbox: open ${resolvConf}: no such file or directory`,
        );
      }
      assert.equal(world.runtime.sandboxes.size, 0);
      await writeFile(resolvConf, "nameserver 192.0.2.53\n");
      await world.until("sandboxes", () => {
        clock.ahead(60_000);
        return world.runtime.sandboxes.size === 2;
      });
    } finally {
      await world.close();
    }
  });
});

test("what the node says of its resolv.conf at its start", async () => {
  await inDirectory(async (directory) => {
    const path = join(directory, "resolv.conf");
    const told = async (text: string, domain = "cluster.local"): Promise<string | undefined> => {
      await writeFile(path, text);
      return resolvConfTrouble(path, domain);
    };
    assert.equal(await resolvConfTrouble("", "cluster.local"), undefined);
    assert.equal(
      await resolvConfTrouble(path, "cluster.local"),
      `open ${path}: no such file or directory`,
    );
    assert.equal(await resolvConfTrouble(directory, ""), `read ${directory}: is a directory`);
    const domains = (count: number, length = 5): string =>
      Array.from({ length: count }, (_, at) => String(at).padStart(length, "d")).join(" ");
    assert.equal(await told(`search ${domains(29)}\n`), undefined);
    assert.equal(
      await told(`search ${domains(30)}\n`),
      `Resolv.conf file '${path}' contains search line consisting of more than 29 domains!`,
    );
    assert.equal(await told(`search ${domains(32)}\n`, ""), undefined);
    assert.equal(
      await told(`search ${"d".repeat(254)}\n`),
      `Resolv.conf file "${path}" contains a search path which length is more than allowed 253 chars!`,
    );
    assert.equal(
      await told(`search ${domains(9, 240)}\n`),
      `Resolv.conf file '${path}' contains search line which length is more than allowed 2048 chars!`,
    );
  });
});
