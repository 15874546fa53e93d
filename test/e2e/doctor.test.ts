import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { describe, test } from "node:test";

import type { DoctorReport } from "../../src/agent/doctor/report.ts";
import { eventually, Machine, root } from "./lib/machine.ts";
import { cannotRun, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();
const program = `${root}/bin/remora`;

/** What a machine inside a machine lacks, and who starts it may know of. */
const ofTheStage = new Set([
  "cgroups-v1",
  "cgroups-hybrid",
  "no-swap-accounting",
  "kernel-limit-low",
  "capability-missing",
  "no-sys-resource",
  "engine-no-live-restore",
  "engine-driver-mismatch",
  "engine-storage-slow",
  "swap-on",
  "disk-filling",
  "disk-full",
  "memory-pressure",
  "clock-not-synchronised",
]);

const nameServer = `
const socket = require("node:dgram").createSocket("udp4");
socket.on("message", (query, from) => {
  const reply = Buffer.from(query);
  reply.writeUInt16BE(0x8183, 2);
  socket.send(reply, from.port, from.address);
});
socket.bind(53, "127.0.0.9");
`;

interface Examined {
  readonly code: number;
  readonly report: DoctorReport;
  /** Findings that are not of the stage. */
  readonly problems: readonly string[];
  readonly text: string;
}

async function examine(machine: Machine, ...args: readonly string[]): Promise<Examined> {
  const argv = [program, "doctor", "--json", ...args];
  const { exitCode, stderr, stdout } = await machine.exec(argv, { allowFailure: true });
  assert.equal(stderr, "", stdout);
  const report = JSON.parse(stdout) as DoctorReport;
  const findings = report.checks.flatMap((check) => check.findings);
  return {
    code: exitCode,
    report,
    problems: findings.map(({ problem }) => problem).filter((one) => !ofTheStage.has(one)),
    text: findings.map(({ problem, text }) => `${problem}: ${text}`).join("\n"),
  };
}

async function sh(machine: Machine, script: string): Promise<string> {
  return (await machine.exec(["sh", "-c", script])).stdout;
}

describe("remora doctor", { skip: skip ?? false }, () => {
  test("has nothing to say of a good machine, and names what is broken on a running one", async () => {
    await using machine = await Machine.start("doctor");
    await writeFile(machine.path("/etc/resolv.conf"), "nameserver 127.0.0.9\n");
    machine.spawn([`${root}/bin/node`, "-e", nameServer]);

    const before = await examine(machine);
    assert.deepEqual(before.problems, [], before.text);
    assert.equal(before.report.pid, null);
    assert.equal(before.report.summary.unknown, 0, JSON.stringify(before.report.checks));

    const remora = await remoraUp(machine);
    const good = await examine(machine);
    assert.deepEqual(good.problems, [], good.text);
    assert.deepEqual(
      good.report.checks.filter(({ status }) => status === "unknown"),
      [],
    );
    const wanted = ["rules", "paths", "cluster-dns", "api", "permissions", "node", "reverse-path"];
    for (const id of wanted) {
      const check = good.report.checks.find((one) => one.id === id);
      assert.equal(check?.status, "ok", JSON.stringify(check));
    }
    assert.match(
      good.report.checks.find(({ id }) => id === "paths")?.seen ?? "",
      /^node to Service, pod to pod, pod to Service, pod to cluster DNS/,
    );

    // A firewall that was told nothing of pods.
    await sh(
      machine,
      "nft 'add table inet fw; add chain inet fw forward { type filter hook forward priority 0; policy accept; }; add chain inet fw input { type filter hook input priority 0; policy accept; }; add rule inet fw forward iifname remora0 drop; add rule inet fw input iifname remora0 tcp dport 6443 drop'",
    );
    const walled = await examine(machine, "--only", "firewalls,paths");
    assert.equal(walled.code, 1);
    for (const problem of ["firewall-blocks", "path-pod-service"]) {
      assert.ok(walled.problems.includes(problem), walled.text);
    }
    await sh(machine, "nft delete table inet fw");

    await machine.kubectl(["cordon", machine.name]);
    assert.deepEqual((await examine(machine, "--only", "node")).problems, ["node-cordoned"]);
    await machine.kubectl(["uncordon", machine.name]);

    // An engine that takes connections and does not answer.
    const dockerd = (await sh(machine, "pidof dockerd")).trim().split(" ");
    await machine.exec(["kill", "-STOP", ...dockerd]);
    const started = performance.now();
    const hanging = await examine(machine, "--only", "docker,disk,api");
    assert.ok(performance.now() - started < 25_000);
    await machine.exec(["kill", "-CONT", ...dockerd]);
    assert.deepEqual(hanging.problems, ["engine-hangs"], hanging.text);
    assert.equal(hanging.report.summary.unknown, 0, JSON.stringify(hanging.report.checks));

    // What somebody else gets of this machine.
    await machine.kubectl([
      "create",
      "secret",
      "generic",
      "login",
      "--from-literal=password=canary-of-a-secret",
    ]);
    await machine.loadBusybox();
    await machine.kubectl(["create", "-f", "-"], {
      stdin: JSON.stringify({
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name: "web", annotations: { "example.com/a": "canary-of-an-annotation" } },
        spec: {
          containers: [
            {
              name: "web",
              image: "busybox:1.36",
              command: ["sh", "-c", ": canary-of-a-command; exec sleep 1000"],
              env: [
                { name: "PLAIN", value: "canary-of-an-environment" },
                {
                  name: "PASSWORD",
                  valueFrom: { secretKeyRef: { name: "login", key: "password" } },
                },
              ],
            },
          ],
        },
      }),
    });
    await eventually(
      async () => {
        const phase = await machine.kubectl([
          "get",
          "pod",
          "web",
          "-o",
          "jsonpath={.status.phase}",
        ]);
        return phase.stdout === "Running" ? true : undefined;
      },
      { timeoutMs: 30_000, describe: () => remora.output() },
    );
    await sh(machine, `${program} support-bundle --output /run/bundle.tar.gz`);
    const inside = await sh(machine, "cd /run && tar -xzf bundle.tar.gz -O");
    assert.doesNotMatch(inside, /canary-of/);
    const names = await sh(machine, "tar -tzf /run/bundle.tar.gz");
    for (const name of ["snapshot.json", "cluster/pods.json", "metrics.txt", "network/nft.txt"]) {
      assert.ok(names.includes(name), names);
    }
    assert.match(inside, /"environmentNames": \[\s*"PLAIN",\s*"PASSWORD"/);
    const credentials = await sh(machine, "cat /var/lib/remora/control-plane/pki/*.key");
    for (const line of credentials.split("\n").filter((one) => one.length > 60)) {
      assert.ok(!inside.includes(line), line);
    }
    assert.equal((await sh(machine, "stat -c %a /run/bundle.tar.gz")).trim(), "600");

    // An agent that is gone, and with it the API server.
    await remora.signal("KILL");
    await remora.exited;
    const gone = await examine(machine, "--only", "api,rules,paths,ports,state");
    assert.equal(gone.report.pid, null);
    assert.deepEqual(gone.problems, ["api-refused"], gone.text);
  });
});
