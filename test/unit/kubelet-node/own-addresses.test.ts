import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { nodeAddresses } from "../../../src/kubelet/node/choose-node-ips.ts";
import { OwnAddresses, type OwnAddressesFound } from "../../../src/kubelet/node/own-addresses.ts";
import type { Logger } from "../../../src/lib/log.ts";

/** A machine with one address of each interface; it leaves by the first of `routes`. */
class Machine {
  addresses: Record<string, string> = { eth0: "192.0.2.2", eth1: "198.51.100.7" };
  /** Interfaces without a carrier: Node does not show them. */
  readonly down = new Set<string>();
  route: string | undefined = "192.0.2.2";
  now = 0;
  readonly warnings: string[] = [];
  /** What the server has. */
  status: readonly string[] = [];
  readonly #own: OwnAddresses;

  constructor(nodeIPs: readonly string[] = []) {
    const logger: Logger = {
      log: (_level, _msg, fields) => this.warnings.push(String(fields?.["error"])),
      child: () => logger,
    };
    this.#own = new OwnAddresses({
      config: { nodeName: "n1", nodeIPs },
      host: {
        addresses: () =>
          Object.entries(this.addresses)
            .filter(([interfaceName]) => !this.down.has(interfaceName))
            .map(([interfaceName, address]) => ({ interfaceName, address })),
        hasAddress: async (address) => Object.values(this.addresses).includes(address),
        routeSources: async () => (this.route === undefined ? {} : { IPv4: this.route }),
      },
      podFamilies: () => ["IPv4"],
      clock: { monotonic: () => this.now },
      logger,
    });
  }

  get lost(): boolean {
    return this.#own.lost;
  }

  async look(): Promise<OwnAddressesFound> {
    const found = await this.#own.look({ addresses: nodeAddresses(this.status, "n1") });
    this.status = found.ips;
    return found;
  }
}

describe("a node's own addresses", () => {
  test("a default route that wavers is no news; one that has moved for a second is", async () => {
    const machine = new Machine();
    assert.deepEqual(await machine.look(), { ips: ["192.0.2.2"] });
    machine.route = "198.51.100.7";
    assert.deepEqual(await machine.look(), { ips: ["192.0.2.2"], againMs: 1000 });
    machine.now = 900;
    machine.route = "192.0.2.2";
    assert.deepEqual(await machine.look(), { ips: ["192.0.2.2"] });
    machine.route = "198.51.100.7";
    assert.deepEqual(await machine.look(), { ips: ["192.0.2.2"], againMs: 1000 });
    machine.now = 1800;
    assert.deepEqual(await machine.look(), { ips: ["192.0.2.2"], againMs: 100 });
    machine.now = 1900;
    assert.deepEqual(await machine.look(), { ips: ["198.51.100.7"] });
  });

  test("an address that is gone is not waited for", async () => {
    const machine = new Machine();
    await machine.look();
    delete machine.addresses["eth0"];
    machine.route = "198.51.100.7";
    assert.deepEqual(await machine.look(), { ips: ["198.51.100.7"] });
  });

  test("a cable that is out changes nothing, with a route or without", async () => {
    const machine = new Machine();
    await machine.look();
    machine.down.add("eth0");
    assert.deepEqual(await machine.look(), { ips: ["192.0.2.2"] });
    machine.route = undefined;
    assert.deepEqual(await machine.look(), { ips: ["192.0.2.2"] });
    assert.deepEqual([machine.lost, machine.warnings], [false, []]);
  });

  test("what is gone with everything else stays, is said once, and again the next time", async () => {
    const machine = new Machine();
    await machine.look();
    const { addresses, route } = machine;
    for (const times of [1, 2]) {
      machine.addresses = {};
      machine.route = undefined;
      for (let looks = 0; looks < 3; looks += 1)
        assert.deepEqual(await machine.look(), { ips: ["192.0.2.2"] });
      assert.deepEqual([machine.lost, machine.warnings.length], [true, times]);
      machine.addresses = addresses;
      machine.route = route;
      assert.deepEqual(await machine.look(), { ips: ["192.0.2.2"] });
      assert.equal(machine.lost, false);
    }
  });

  test("configured addresses neither wait nor give way", async () => {
    const machine = new Machine(["198.51.100.7"]);
    machine.status = ["192.0.2.2"];
    assert.deepEqual(await machine.look(), { ips: ["198.51.100.7"] });
    delete machine.addresses["eth1"];
    assert.deepEqual(await machine.look(), { ips: ["198.51.100.7"] });
    assert.equal(machine.lost, true);
    machine.status = [];
    const { ips, why } = await machine.look();
    assert.deepEqual(ips, []);
    assert.match(why ?? "", /not found in the host's network interfaces/);
  });
});
