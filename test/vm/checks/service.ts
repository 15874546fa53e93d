import assert from "node:assert/strict";

import type { Check } from "../check.ts";
import { type Node, unit } from "../lib/node.ts";
import { packageFile, previousPackageFile } from "../lib/payload.ts";
import { provider } from "../lib/start-machine.ts";
import { traces } from "../lib/traces.ts";
import { Traffic } from "../lib/traffic.ts";
import { versions } from "../lib/packages.ts";
import { shopDestinations, shopReady, shopServes } from "./shop.ts";

const stateDirectory = "/var/lib/remora";
const marker = `${stateDirectory}/remora.json`;

/** Every container with the moment of its start, and the rules that lead to it. */
async function standing(node: Node): Promise<string> {
  return node.machine.sh(`
    docker ps -q --no-trunc --filter name=k8s_ | sort | xargs -r docker inspect -f '{{.Name}} {{.Id}} {{.State.StartedAt}}'
    nft --stateless list table ip remora-proxy | grep -v '^table' | sort`);
}

/** What stands behind a word at the beginning of lines. */
function linesOf(text: string, word: string): readonly string[] {
  return text
    .split("\n")
    .filter((line) => line.startsWith(`${word} `))
    .map((line) => line.slice(word.length).trim())
    .toSorted();
}

interface DoctorReport {
  readonly checks: readonly { readonly id: string; readonly status: string }[];
  readonly summary: Readonly<Record<string, number>>;
}

async function askDoctor({ machine }: Node): Promise<DoctorReport> {
  const argv = ["remora", "doctor", "--json"];
  const { stdout } = await machine.exec(argv, { allowFailure: true, timeoutMs: 600_000 });
  return JSON.parse(stdout) as DoctorReport;
}

/** What the doctor found. The resolver of a machine in qemu is silent: there is no way out of it. */
function wrongOf({ checks }: DoctorReport): DoctorReport["checks"] {
  const expected = provider === "qemu" ? "host-dns" : undefined;
  return checks.filter(({ id, status }) => status === "error" && id !== expected);
}

/** The service as an administrator has it, in the order of a life. */
export const serviceChecks: readonly Check[] = [
  {
    name: "an agent that is stuck is started again by systemd's watchdog, and its pods do not notice",
    run: async (node) => {
      // Two minutes are right for a service and long for a test.
      const patience = "/run/systemd/system/remora-up.service.d/patience.conf";
      await node.machine.writeFile(patience, "[Service]\nWatchdogSec=30\n");
      await node.machine.sh(`systemctl daemon-reload; systemctl restart ${unit}`, {
        timeoutMs: 600_000,
      });
      const before = await standing(node);
      await node.signal("STOP");
      await node.machine.sh(`rm -r $(dirname ${patience}); systemctl daemon-reload`);
      const said = await node.machine.sh(`journalctl -u ${unit} -o cat | grep -i watchdog`);
      assert.match(said, /Watchdog timeout/i);
      assert.equal(await standing(node), before);
    },
  },
  {
    name: "a restart and an upgrade under traffic: no container, rule, connection or request is lost, and every name is answered",
    run: async (node) => {
      const before = await standing(node);
      const traffic = await Traffic.start(node.machine, await shopDestinations(node));
      await node.machine.sh(`systemctl restart ${unit}`, { timeoutMs: 600_000 });
      await node.ready();
      const [first] = (await node.machine.sh("remora --version")).split("\n");
      await node.dpkg("-i", packageFile);
      await node.connect();
      await node.ready();
      const tallies = await traffic.end();
      node.note("traffic", tallies);
      const lost = Object.entries(tallies).filter(([, { answered, asked }]) => answered < asked);
      assert.deepEqual(lost, []);
      for (const { asked } of Object.values(tallies)) assert.ok(asked > 10, `asked ${asked} times`);
      assert.match(first ?? "", new RegExp(`^remora ${versions.previous} `));
      assert.match(
        await node.machine.sh("remora --version"),
        new RegExp(`^remora ${versions.current} `),
      );
      assert.equal(await standing(node), before);
      assert.equal(await node.machine.sh(`systemctl is-active ${unit}`), "active");
    },
  },
  {
    name: "status, doctor and the journal tell of a node that is well",
    run: async (node) => {
      const { stdout: status } = await node.machine.exec(["remora", "status"]);
      assert.match(status, /Ready/);
      // Deadlines of packets are seconds, which an emulated machine may need for something else.
      let report = await askDoctor(node);
      for (let tries = 1; tries < 3 && wrongOf(report).length > 0; tries++) {
        report = await askDoctor(node);
      }
      assert.deepEqual(wrongOf(report), []);
      assert.equal(report.checks.find(({ id }) => id === "systemd")?.status, "ok");
      node.note("doctor", report.summary);
      const fields = await node.machine.sh(
        `journalctl -u ${unit} -o json -n 200 | grep -c '"REMORA_COMPONENT"'`,
      );
      assert.ok(Number(fields) > 0);
      node.note(
        "exposure",
        await node.machine.sh(`systemd-analyze security --no-pager ${unit} | tail -n 1`),
      );
    },
  },
  {
    name: "a stop ends every process of ours and closes its ports; pods and Services go on without it",
    run: async (node) => {
      const before = await standing(node);
      const { echo, webIP } = await shopDestinations(node);
      await node.machine.sh(`systemctl stop ${unit}`);
      const left = await node.machine.sh(`
        cat /sys/fs/cgroup/system.slice/${unit}/cgroup.procs 2>/dev/null || true
        ss -Hltn 'sport = :10250 or sport = :6443'
        ss -Hltun 'src 10.96.0.10'
        systemctl is-active ${unit} remora-up.socket | grep -v inactive || true
        pgrep -a node || true`);
      assert.equal(left, "");
      const said = await node.machine
        .sh(`echo still there | busybox nc -w 20 ${echo.replace(":", " ")} | head -n 1
        printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 20 ${webIP} 80 | tail -n 1`);
      assert.match(said, /^still there\nhello from backend-/);
      // Nobody is woken by a question.
      assert.equal(await node.machine.sh(`systemctl is-active ${unit} || true`), "inactive");
      assert.equal(await standing(node), before);
    },
  },
  {
    name: "state of a newer version is refused with a sentence, and nothing is touched",
    run: async (node) => {
      const before = await standing(node);
      const kept = await node.machine.sh(`cat ${marker}`);
      const newer = kept
        .replace(/"schema": \d+/, '"schema": 99')
        .replace(/"version": "[^"]*"/, '"version": "99.0.0"');
      assert.notEqual(newer, kept);
      await node.machine.sh(`systemctl stop ${unit}`);
      await node.machine.writeFile(marker, `${newer}\n`);
      try {
        const refused = await node.machine.exec(["remora", "up"], { allowFailure: true });
        assert.notEqual(refused.exitCode, 0);
        assert.match(
          refused.stderr + refused.stdout,
          new RegExp(
            `written by remora 99\\.0\\.0 .*this is remora ${versions.current.replaceAll(".", "\\.")}`,
          ),
        );
        const downgrade = await node.machine.exec(["dpkg", "-i", previousPackageFile], {
          allowFailure: true,
          timeoutMs: 600_000,
        });
        assert.notEqual(downgrade.exitCode, 0, downgrade.stdout);
        assert.match(downgrade.stdout + downgrade.stderr, /99\.0\.0/);
        assert.match(
          await node.machine.sh("remora --version"),
          new RegExp(`^remora ${versions.current} `),
        );
        assert.equal(await standing(node), before);
      } finally {
        await node.machine.writeFile(marker, `${kept}\n`);
      }
    },
  },
  {
    name: "while the engine is away a start waits for it and says so",
    run: async (node) => {
      const show = `systemctl show -p ActiveState -p StatusText ${unit} | sort`;
      await node.machine.sh(`systemctl stop docker.socket docker.service
        systemctl mask --runtime docker.service
        systemctl start --no-block ${unit}`);
      try {
        await node.until("it says what it waits for", async () =>
          (await node.machine.sh(show)).startsWith(
            "ActiveState=activating\nStatusText=waiting for the container engine",
          )
            ? true
            : undefined,
        );
      } finally {
        await node.machine.sh(
          "systemctl unmask --runtime docker.service; systemctl start docker.socket docker.service",
        );
      }
      await node.until("it has started", async () =>
        (await node.machine.sh(show)).startsWith("ActiveState=active\n") ? true : undefined,
      );
      await node.ready();
      await shopReady(node);
      await shopServes(node);
    },
  },
  {
    name: "a reboot brings back the node, its pods and their Services without anybody's help",
    run: async (node) => {
      await node.machine.reboot();
      await node.ready();
      await shopReady(node);
      await shopServes(node);
      assert.equal(await node.machine.sh("systemctl --failed --plain --no-legend"), "");
    },
  },
  {
    name: "uninstall removes what its list names and no more, and the purged package leaves the machine as it was",
    run: async (node) => {
      const told = await node.machine.sh("remora uninstall --dry-run 2>&1", { timeoutMs: 600_000 });
      assert.equal(
        await node.machine.sh(`systemctl is-active ${unit}`),
        "active",
        "--dry-run does nothing",
      );
      const said = await node.machine.sh("remora uninstall --yes 2>&1", { timeoutMs: 600_000 });
      assert.match(said, /^0 left$/m);
      const listed = linesOf(told, "would remove");
      assert.ok(listed.length > 20, told);
      assert.deepEqual(linesOf(said, "removed"), listed);
      await node.dpkg("--purge", "remora");
      // Built by hand, so by hand it goes.
      await node.machine.sh("docker rmi remora-shop:v1");
      assert.deepEqual(await traces(node.machine), node.untouched);
    },
  },
];
