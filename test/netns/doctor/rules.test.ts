// Rules of Services, changed by somebody else.
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { rules } from "../../../src/agent/doctor/checks/rules.ts";
import { translations } from "../../../src/agent/doctor/checks/translations.ts";
import type { Machine } from "../../../src/agent/doctor/machine.ts";
import { askAgent } from "../../../src/agent/service/agent-facts.ts";
import { look, never } from "../../component/doctor/made-machine.ts";
import { inTemporary } from "../../fakes/temporary.ts";
import { insideOwnNamespace, sh } from "../namespace.ts";
import { Stage } from "../proxy/stage.ts";
import { bothFamilies } from "../proxy/topology.ts";
import { World } from "../proxy/world.ts";
import { mountOwnSysfs, realMachine } from "./real-machine.ts";

if (insideOwnNamespace(import.meta.filename)) {
  describe("rules in the kernel", { concurrency: false }, () => {
    const world = new World("nftables");
    before(async () => {
      await mountOwnSysfs();
      await world.setUp();
    });
    after(() => world.tearDown());

    async function withMachine(work: (machine: Machine) => Promise<void>): Promise<void> {
      const { facts } = await askAgent("127.0.0.1:10249", never);
      assert.ok(facts !== undefined);
      const server = world.api.url;
      await inTemporary(async (directory) => {
        const kubeconfig = join(directory, "proxy.conf");
        const skip = server.startsWith("https");
        await writeFile(
          kubeconfig,
          JSON.stringify({
            "current-context": "c",
            contexts: [{ name: "c", context: { cluster: "k", user: "u" } }],
            clusters: [{ name: "k", cluster: { server, "insecure-skip-tls-verify": skip } }],
            users: [{ name: "u", user: {} }],
          }),
        );
        const identities = [{ name: "proxy", kubeconfig }] as const;
        await work(realMachine({ pid: process.pid, facts, identities }));
      });
    }

    it("are as the agent writes them; rules-differ names the Service whose are not", async () => {
      const [at] = bothFamilies;
      assert.ok(at !== undefined);
      const stage = new Stage(world, at, "doctor");
      const service = await stage.served({ targets: ["a", "b"] });
      await withMachine(async (machine) => {
        const fine = await look(rules, machine);
        assert.deepEqual([fine.status, ...fine.problems], ["ok"], fine.text);
        await world.stop();
        const key = `{ ${service.clusterIP} . tcp . 80 }`;
        await sh("nft", "delete", "element", "ip", "remora-proxy", "svc", key);
        const said = await look(rules, machine);
        assert.deepEqual(said.problems, ["rules-differ"], said.text);
        assert.match(said.text, new RegExp(`default/${service.name}.*nothing instead of`));
        assert.match(
          said.remedies[0] ?? "",
          new RegExp(`^remora service default/${service.name} `),
        );
        await world.start();
        assert.deepEqual((await look(rules, machine)).problems, []);
      });
      await stage.close();
    });

    it("services-shadowed: a port forwarding that comes before the agent's rules", async () => {
      await withMachine(async (machine) => {
        assert.deepEqual((await look(translations, machine)).problems, []);
        await sh(
          "nft",
          "add table ip vpn; add chain ip vpn pre { type nat hook prerouting priority -150; }; add rule ip vpn pre ip daddr 10.96.0.0/12 tcp dport 80 dnat to 192.0.2.9; add rule ip vpn pre ip daddr 203.0.113.9 tcp dport 80 dnat to 192.0.2.9",
        );
        const said = await look(translations, machine);
        await sh("nft", "delete", "table", "ip", "vpn");
        assert.deepEqual(said.problems, ["services-shadowed"], said.text);
        assert.match(
          said.text,
          /^nft table ip vpn, chain pre: ip daddr 10\.96\.0\.0\/12 tcp dport 80 /,
        );
      });
    });

    it("rules-table-missing: a bridge without the table of the pod network", async () => {
      await sh("nft", "delete", "table", "ip", "remora-network");
      await withMachine(async (machine) => {
        const said = await look(rules, machine);
        assert.deepEqual(said.problems, ["rules-table-missing"], said.text);
        await world.topology.restoreNetwork();
        assert.deepEqual((await look(rules, machine)).problems, []);
      });
    });
  });
}
