// What is read of the machine itself.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { detectNodeIPs } from "../../../src/kubelet/node/addresses.ts";
import { computeCapacity } from "../../../src/kubelet/node/allocatable.ts";
import { readHardware } from "../../../src/kubelet/node/hardware.ts";
import { systemHost } from "../../../src/kubelet/node/host.ts";

describe("this machine", () => {
  const host = systemHost();

  test("has an identity, a size and signals", async () => {
    const identity = host.identity();
    assert.match(identity.bootID, /^[0-9a-f-]{36}$/);
    assert.match(identity.architecture, /^(amd64|arm64)$/);
    assert.notEqual(identity.systemUUID, "");
    const machine = await host.capacity("/", 110);
    assert.ok(machine.cpuMillicores >= 1000);
    assert.ok(machine.memoryBytes > 2 ** 27);
    assert.match(computeCapacity(machine)["ephemeral-storage"] ?? "", /^[1-9]/);
    const signals = await host.signals("/", "/");
    for (const name of [
      "memory.available",
      "nodefs.available",
      "imagefs.available",
      "pid.available",
    ]) {
      const { available = 0, capacity = 0 } = signals[name] ?? {};
      assert.ok(available > 0 && available <= capacity, name);
    }
  });

  test("has addresses that it really has", async () => {
    const own = host.addresses().map(({ address }) => address);
    for (const ip of await detectNodeIPs(AbortSignal.timeout(5000)))
      assert.ok(own.includes(ip), ip);
  });

  test("knows its addresses apart from those of others, whether or not their interface runs", async () => {
    assert.equal(await host.hasAddress?.("127.0.0.1"), true);
    assert.equal(await host.hasAddress?.("192.0.2.77"), false);
    assert.equal(await host.hasAddress?.("2001:db8::77"), false);
  });

  test("tells its hardware through the child process", async () => {
    const hardware = await readHardware(AbortSignal.timeout(60_000));
    assert.ok(hardware.cpu.flags.length > 5);
    assert.ok((hardware.memoryBytes ?? 0) > 2 ** 27);
  });

  test("a child that fails or reports nonsense is an error", async () => {
    const signal = AbortSignal.timeout(10_000);
    await assert.rejects(readHardware(signal, { argv: ["false"] }), { code: "REMORA_EXEC" });
    await assert.rejects(readHardware(signal, { argv: ["echo", "x"] }), { code: "REMORA_PARSE" });
  });
});
