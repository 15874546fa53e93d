import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { describe, test } from "node:test";

import { agentPorts, checkPorts } from "../../../src/agent/preflight.ts";
import { agentDefaults } from "../../../src/config/agent-config.ts";

const address = "127.0.0.1";

describe("ports before the start", () => {
  test("a port that is taken is named with what it is for and the way out; free ones are let go of", async () => {
    const other = createServer().listen(0, address);
    await once(other, "listening");
    const bound = other.address();
    assert.ok(bound !== null && typeof bound === "object");
    const { port } = bound;
    await assert.rejects(
      checkPorts([{ port, address, purpose: "API server", flag: "--api-port" }]),
      {
        code: "REMORA_SETUP",
        message: `port ${port} (API server) is in use by another program; stop it (ss -ltnp 'sport = :${port}' names it), or choose another port with --api-port`,
      },
    );
    other.close();
    await once(other, "close");
    await checkPorts([{ port, address, purpose: "API server" }]);
    await checkPorts([{ port, address, purpose: "API server" }]);
  });

  test("an address that is not ours is told apart from a port that is taken", async () => {
    await assert.rejects(checkPorts([{ port: 1, address: "192.0.2.1", purpose: "kubelet API" }]), {
      message: /^cannot listen on 192\.0\.2\.1:1 \(kubelet API\): .*EADDRNOTAVAIL/,
    });
  });

  test("the agent's ports are the kubelet's, and kube-proxy's where they are not waited for", () => {
    const ports = (bindAddressHardFail: boolean): readonly number[] =>
      agentPorts({
        ...agentDefaults,
        proxy: { ...agentDefaults.proxy, bindAddressHardFail },
      }).map(({ port }) => port);
    assert.deepEqual(ports(true), [10_250, 10_248, 10_256, 10_249]);
    assert.deepEqual(ports(false), [10_250, 10_248]);
  });
});
