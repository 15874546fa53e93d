import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { eventually, Machines, root } from "./lib/machine.ts";
import { cannotRun, remoraDown, remoraJoin, remoraUp } from "./lib/remora.ts";

const program = `${root}/bin/remora`;

const pod = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "there" },
  spec: {
    nodeName: "node2",
    terminationGracePeriodSeconds: 1,
    containers: [
      { name: "c", image: "busybox:1.36", command: ["sh", "-c", "echo hello; exec sleep 1000"] },
    ],
  },
};

describe(
  "a machine joins by the command that remora token create prints",
  { skip: cannotRun() ?? false },
  () => {
    test("its pods run, and kubectl reaches them through the first machine, TLS verified", async () => {
      await using machines = await Machines.start("jn", 2);
      const [one, two] = machines.all;
      assert.ok(one !== undefined && two !== undefined);
      await Promise.all([one.loadBusybox(), two.loadBusybox()]);
      const up = await remoraUp(one);
      const created = await one.exec([program, "token", "create", "--description", "for node2"]);
      const command = created.stdout.trim();
      assert.match(
        command,
        /^remora run --join https:\/\/172\.30\.0\.1:6443 --token [a-z0-9]{6}\.[a-z0-9]{16} --ca-hash sha256:[0-9a-f]{64}$/,
      );
      const args = command.split(" ").slice(2);
      let agent = await remoraJoin(two, args);
      const [, id = "", secret = ""] = /--token (\w{6})\.(\w{16})/.exec(command) ?? [];
      const processes = await two.exec(["ps", "axww"]);
      assert.ok(!processes.stdout.includes(secret), "the process list is public");
      assert.ok(!agent.output().includes(secret));
      await one.kubectl(["wait", "--for=condition=Ready", "node/node2", "--timeout=60s"]);
      await one.kubectl(["create", "-f", "-"], { stdin: JSON.stringify(pod) });
      await one.kubectl(["wait", "--for=condition=Ready", "pod/there", "--timeout=60s"]);
      // The API server verifies port 10250 from the moment its certificate is issued by the cluster's CA.
      const logs = await eventually(
        async () => {
          const result = await one.kubectl(["logs", "there"], { allowFailure: true });
          return result.exitCode === 0 ? result.stdout : undefined;
        },
        { timeoutMs: 30_000, describe: () => agent.output() },
      );
      assert.equal(logs, "hello\n");
      const executed = await one.kubectl(["exec", "there", "--", "echo", "from", "inside"]);
      assert.equal(executed.stdout, "from inside\n");
      const requests = await one.kubectl(["get", "csr"]);
      assert.match(
        requests.stdout,
        /kube-apiserver-client-kubelet +system:bootstrap:\w{6} .*Approved,Issued/,
      );
      assert.match(requests.stdout, /kubelet-serving +system:node:node2 .*Approved,Issued/);

      const listed = await one.exec([program, "token", "list"]);
      assert.match(
        listed.stdout,
        new RegExp(`^${id} +23h59m +authentication,signing +for node2$`, "m"),
      );
      assert.ok(!listed.stdout.includes(secret));
      await one.exec([program, "token", "delete", id]);
      // The token is gone; a machine that has joined needs it no more.
      await agent.signal("TERM");
      assert.equal(await agent.exited, 0);
      agent = await remoraJoin(two, args);
      assert.equal((await one.kubectl(["exec", "there", "--", "echo", "again"])).stdout, "again\n");
      await agent.signal("TERM");
      await agent.exited;

      const late = await two.exec(
        [program, "run", ...args, "--root-dir", "/run/late", "--hostname-override", "late"],
        { allowFailure: true },
      );
      assert.equal(late.exitCode, 1);
      assert.match(
        late.stderr,
        new RegExp(`does not know token ${id}: it has expired or is mistyped`),
      );
      const wrong = await two.exec([program, "down"], { allowFailure: true });
      assert.equal(wrong.exitCode, 1);
      assert.match(wrong.stderr, /: remora down --root-dir \/var\/lib\/kubelet removes it/);
      const down = await remoraDown(two, ["--root-dir", "/var/lib/kubelet"]);
      assert.match(down, /nothing is left/);
      const left = await two.exec(["find", "/var/lib/kubelet", "-mindepth", "1"]);
      assert.equal(left.stdout, "", "nothing stays behind");
      await up.signal("TERM");
      await up.exited;
    });
  },
);
