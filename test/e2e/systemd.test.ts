import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { eventually, root } from "./lib/machine.ts";
import { cannotBootSystemd, SystemdMachine } from "./lib/systemd-machine.ts";

const skip = cannotBootSystemd();
const unit = "remora-up.service";
const dns = "10.96.0.10";

const objects = `
apiVersion: v1
kind: Pod
metadata: { name: web, labels: { app: web } }
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - { name: web, image: "busybox:1.36", command: [httpd, -f, -p, "8080"] }
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { selector: { app: web }, ports: [{ port: 80, targetPort: 8080 }] }
`;

interface Asked {
  readonly asked: number;
  readonly failures: readonly string[];
}

/** Has a Node process there do nothing for ever, as a bug would: its threads and timers are not asked. */
const stickLoop = `
const [target] = await (await fetch("http://127.0.0.1:9229/json/list")).json();
const socket = new WebSocket(target.webSocketDebuggerUrl);
await new Promise((resolve) => (socket.onopen = resolve));
socket.send(JSON.stringify({ id: 1, method: "Runtime.evaluate", params: { expression: "for (;;);" } }));
setTimeout(() => process.exit(), 200);
`;

/** Makes the package that a user installs, on the machine's disk. */
function packageOnto(machine: SystemdMachine): string {
  const options = ["--arch", "amd64", "--only", "deb", "--compression", "none"];
  const outdir = `${machine.disk}/package`;
  execFileSync(`${root}/bin/node`, ["scripts/package.ts", ...options, "--outdir", outdir], {
    cwd: root,
    stdio: "pipe",
  });
  const [file = ""] = readdirSync(outdir).filter((name) => name.endsWith(".deb"));
  return `/var/lib/docker/package/${file}`;
}

describe("the service, under systemd", { skip, concurrency: false }, () => {
  let machine: SystemdMachine;

  before(async () => {
    machine = await SystemdMachine.start();
    await machine.exec(["dpkg", "-i", "--force-depends", packageOnto(machine)]);
  });

  after(async () => {
    await machine[Symbol.asyncDispose]();
  });

  const show = async (property: string, of = unit): Promise<string> =>
    machine.exec(["systemctl", "show", "-P", property, of]);

  /** Every container with the moment of its start, and every rule. */
  const standing = async (): Promise<string> =>
    machine.sh(`docker ps -q --no-trunc --filter label=remora.io/node | sort |
        xargs docker inspect -f '{{.Name}} {{.Id}} {{.State.StartedAt}}'
      nft --stateless list table ip remora-proxy | sort`);

  const becomesActive = async (): Promise<void> => {
    await eventually(async () => ((await show("ActiveState")) === "active" ? true : undefined), {
      timeoutMs: 45_000,
      describe: () => machine.exec(["systemctl", "status", "--no-pager", "-n", "30", unit]),
    });
  };

  test("its units are as systemd wants them", async () => {
    const units = ["remora", "remora-up"].flatMap((name) => [`${name}.service`, `${name}.socket`]);
    assert.equal(await machine.sh(`systemd-analyze verify ${units.join(" ")} 2>&1`), "");
  });

  test("a start without a cluster to join says so at once, and is tried again", async () => {
    const started = machine.exec(["systemctl", "start", "remora.service"]);
    await assert.rejects(started, /systemctl status remora\.service/);
    const said = await machine.exec(["journalctl", "-u", "remora", "-p", "err", "-o", "cat"]);
    assert.match(said, /^remora: give --kubeconfig with credentials of this node, or --join /m);
    assert.equal(await show("SubState", "remora.service"), "auto-restart");
    await machine.exec(["systemctl", "stop", "remora.service"]);
    assert.equal(await show("ActiveState", "remora.socket"), "inactive");
  });

  test("a start ends when the node is Ready and the kernel has the rules", async () => {
    await machine.loadBusybox();
    // Two minutes are right for a service and long for a test.
    await machine.sh(`mkdir /run/systemd/system/${unit}.d
      printf '[Service]\\nWatchdogSec=15\\n' >/run/systemd/system/${unit}.d/patience.conf
      systemctl daemon-reload`);
    await machine.exec(["systemctl", "start", unit]);
    const ready = `kubectl get nodes -o 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}'`;
    assert.equal(await machine.sh(ready), "True");
    assert.match(await machine.sh("nft list table ip remora-proxy"), /10\.96\.0\.1 /);
    assert.match(await show("StatusText"), /^node \S+ is Ready$/);
    assert.equal(await show("ActiveState", "remora-up.socket"), "active");
    const apply = ["kubectl", "apply", "-f", "-"];
    await machine.exec(apply, { stdin: Buffer.from(objects) });
    await machine.sh("kubectl wait --for=condition=Ready pod/web --timeout=30s");
  });

  /** What became of all questions that were asked while `work` was done. */
  const askedDuring = async (work: () => Promise<void>): Promise<ReadonlyMap<string, Asked>> => {
    const client = machine.exec(
      [`${root}/bin/node`, `${root}/test/e2e/lib/held-ports-client.ts`, dns],
      { timeoutMs: 60_000 },
    );
    await eventually(async () => (await machine.sh("pgrep -f [h]eld-ports-client"), true), {
      timeoutMs: 10_000,
      describe: () => "the client has not started",
    });
    await delay(500);
    await work();
    await delay(500);
    await machine.sh("pkill -TERM -f [h]eld-ports-client");
    const text = (await client).split("\n").at(-1) ?? "";
    const results = new Map(Object.entries(JSON.parse(text) as Record<string, Asked>));
    assert.deepEqual([...results.keys()], ["node", "api", "udp", "tcp"]);
    for (const [kind, { asked }] of results) {
      assert.ok(asked > 50, `${kind}: asked ${asked} times`);
    }
    return results;
  };

  test("a restart refuses no connection and loses no question", async () => {
    const [was, pid] = [await standing(), await show("MainPID")];
    const results = await askedDuring(async () => {
      await machine.exec(["systemctl", "restart", unit]);
    });
    for (const [kind, { failures }] of results) assert.deepEqual(failures, [], kind);
    assert.notEqual(await show("MainPID"), pid);
    assert.equal(await standing(), was);
  });

  test("a crash refuses no connection, and costs only what was being answered", async () => {
    const was = await standing();
    const results = await askedDuring(async () => {
      await machine.exec(["systemctl", "kill", "--signal=KILL", "--kill-who=main", unit]);
      await eventually(async () => ((await show("NRestarts")) === "1" ? true : undefined), {
        timeoutMs: 10_000,
        describe: () => machine.exec(["systemctl", "status", "--no-pager", unit]),
      });
      await becomesActive();
    });
    for (const [kind, { failures }] of results) {
      assert.ok(failures.length <= 3, `${kind}: ${failures.join("; ")}`);
      assert.doesNotMatch(failures.join(" "), /ECONNREFUSED/, kind);
    }
    assert.equal(await standing(), was);
  });

  test("a loop that is stuck is ended by the watchdog, and pods do not notice", async () => {
    const was = await standing();
    const pid = await show("MainPID");
    const restarts = Number(await show("NRestarts"));
    await machine.exec(["kill", "-USR1", pid]);
    const stick = [`${root}/bin/node`, "--input-type=module", "--eval", stickLoop];
    await eventually(async () => (await machine.exec(stick), true), {
      timeoutMs: 10_000,
      describe: () => "no inspector",
    });
    await eventually(async () => (Number(await show("NRestarts")) > restarts ? true : undefined), {
      timeoutMs: 30_000,
      describe: () => machine.exec(["journalctl", "-u", unit, "-n", "20"]),
    });
    await becomesActive();
    assert.match(await machine.exec(["journalctl", "-u", unit, "-n", "50"]), /Watchdog timeout/);
    assert.equal(await standing(), was);
  });

  test("lines of the journal have priorities and fields", async () => {
    const line = await machine.sh(
      `journalctl -u ${unit} -o json | grep '"node registered' | head -n 1`,
    );
    const entry = JSON.parse(line) as Record<string, string>;
    assert.deepEqual(
      [entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"], entry["REMORA_COMPONENT"]],
      ["6", "remora", "node"],
    );
  });

  test("a start waits for the engine, and says so", async () => {
    await machine.sh(`systemctl stop docker.socket docker.service
      systemctl mask --runtime docker.service docker.socket
      systemctl restart --no-block ${unit}`);
    await eventually(
      async () =>
        (await show("StatusText")).startsWith("waiting for the container engine")
          ? true
          : undefined,
      { timeoutMs: 10_000, describe: () => show("StatusText") },
    );
    assert.equal(await show("ActiveState"), "activating");
    await machine.sh(`systemctl unmask --runtime docker.service docker.socket
      systemctl start docker.service`);
    await becomesActive();
  });

  test("a stop leaves no process and no open port, and nobody who asks starts it again", async () => {
    const was = await standing();
    const cgroup = await show("ControlGroup");
    await machine.exec(["systemctl", "stop", unit]);
    assert.equal(await show("ActiveState", "remora-up.socket"), "inactive");
    assert.equal(
      await machine.sh(`cat /sys/fs/cgroup/systemd${cgroup}/cgroup.procs 2>/dev/null || true`),
      "",
    );
    assert.equal(await machine.sh("pgrep -a remora || true; pgrep -af '[r]emora.cjs' || true"), "");
    assert.equal(
      await machine.sh("ss -Hltun '( sport = :10250 or sport = :6443 or sport = :53 )'"),
      "",
    );
    await machine.sh("! kubectl --request-timeout 1s get nodes 2>/dev/null");
    assert.equal(await show("ActiveState"), "inactive");
    assert.equal(await standing(), was);
  });
});
