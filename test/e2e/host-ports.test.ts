// The conformance test "HostPort validates that there is no conflict between pods with same hostPort but different hostIP
// and protocol" with the whole agent, and what becomes of the ports when it, or its rules, are taken away.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { eventually, Machine, root } from "./lib/machine.ts";
import { cannotRun, remoraDown, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();
const peer = `${root}/test/netns/peer.ts`;
const port = 54323;

interface Shown {
  readonly metadata: { readonly uid: string };
  readonly status: { readonly phase?: string; readonly reason?: string; readonly message?: string };
}

function pod(
  name: string,
  hostPort: { hostPort: number; hostIP?: string; protocol?: string },
  spec: object = {},
): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name },
    spec: {
      terminationGracePeriodSeconds: 0,
      containers: [
        {
          name: "main",
          image: "docker.io/library/busybox:1.36",
          command: ["sleep", "100000"],
          ports: [{ containerPort: 8080, ...hostPort }],
        },
      ],
      ...spec,
    },
  };
}

describe("host ports", { skip: skip ?? false }, () => {
  test("are served, kept over a crash, mended, refused when taken, and told when they hide a program", async () => {
    await using machine = await Machine.start("hostports");
    await machine.loadBusybox();
    let remora = await remoraUp(machine);

    const create = async (...objects: readonly object[]): Promise<void> => {
      const list = JSON.stringify({ apiVersion: "v1", kind: "List", items: objects });
      await machine.exec(["sh", "-c", `kubectl create -f - <<'EOF'\n${list}\nEOF`]);
    };
    const show = async (name: string): Promise<Shown> =>
      JSON.parse((await machine.kubectl(["get", "pod", name, "-o", "json"])).stdout) as Shown;
    const nodeField = async (path: string): Promise<string> =>
      (await machine.kubectl(["get", "nodes", "-o", `jsonpath={${path}}`])).stdout;
    const node = await nodeField(".items[0].metadata.name");
    const nodeIP = await nodeField('.items[0].status.addresses[?(@.type=="InternalIP")].address');
    const [ip = ""] = nodeIP.split(" ");

    /** A program inside the pod's network that says its name on TCP and UDP 8080. */
    const serve = async (name: string): Promise<void> => {
      const { uid } = (await show(name)).metadata;
      const filters = encodeURIComponent(
        JSON.stringify({ label: [`io.kubernetes.pod.uid=${uid}`] }),
      );
      const all = (await machine.docker("GET", `/containers/json?filters=${filters}`)) as {
        readonly Id: string;
      }[];
      const first = (await machine.docker("GET", `/containers/${all[0]?.Id ?? ""}/json`)) as {
        readonly State: { readonly Pid: number };
      };
      const inside = ["nsenter", "-t", String(first.State.Pid), "-n"];
      const server = machine.spawn([...inside, process.execPath, peer, "serve", name, "8080"]);
      await eventually(async () => (server.output().includes("ready") ? true : undefined), {
        timeoutMs: 10_000,
        describe: () => server.output(),
      });
    };
    const ask = async (protocol: "tcp" | "udp", host: string, at = port): Promise<string> => {
      const { stdout } = await machine.exec([process.execPath, peer, protocol, host, String(at)]);
      return stdout.split(/\s/)[0] ?? "";
    };
    const answers = async (): Promise<readonly string[]> => [
      await ask("tcp", "127.0.0.1"),
      await ask("tcp", ip),
      await ask("udp", ip),
    ];

    const mine = { nodeName: node };
    await create(
      pod("pod1", { hostPort: port, hostIP: "127.0.0.1" }, mine),
      pod("pod2", { hostPort: port, hostIP: ip }, mine),
      pod("pod3", { hostPort: port, hostIP: ip, protocol: "UDP" }, mine),
    );
    await machine.kubectl(["wait", "--for=condition=Ready", "pods", "--all", "--timeout=60s"]);
    for (const name of ["pod1", "pod2", "pod3"]) await serve(name);
    assert.deepEqual(await answers(), ["pod1", "pod2", "pod3"]);

    // Taken: refused by the node, and by the scheduler.
    await create(pod("late", { hostPort: port }, mine), pod("pending", { hostPort: port }));
    const late = await eventually(
      async () => {
        const { status } = await show("late");
        return status.phase === "Failed" ? status : undefined;
      },
      { timeoutMs: 20_000, describe: () => remora.output() },
    );
    assert.equal(late.reason, "NodePorts");
    assert.match(late.message ?? "", /didn't have free ports for the requested pod ports/);
    const told = async (name: string, reason: string): Promise<string> =>
      eventually(
        async () => {
          const fields = `involvedObject.name=${name},reason=${reason}`;
          const path = "jsonpath={.items[*].message}";
          const events = ["get", "events", "--field-selector", fields, "-o", path];
          const { stdout } = await machine.kubectl(events);
          return stdout === "" ? undefined : stdout;
        },
        { timeoutMs: 20_000, describe: () => remora.output() },
      );
    assert.match(await told("pending", "FailedScheduling"), /didn't have free ports/);
    await machine.kubectl(["delete", "pod", "late", "pending"]);

    // A program of the node that listens there is not reached any more, and that is said.
    const own = machine.spawn([process.execPath, peer, "serve", "program", "7070"]);
    await eventually(async () => (own.output().includes("ready") ? true : undefined), {
      timeoutMs: 10_000,
      describe: () => own.output(),
    });
    assert.equal(await ask("tcp", ip, 7070), "program");
    await create(
      pod("thief", { hostPort: 7070 }),
      pod("nowhere", { hostPort: 80, hostIP: "198.51.100.7" }),
    );
    assert.match(
      await told("thief", "HostPortHidesListener"),
      /^hostPort 7070\/TCP leads to this pod, no longer to the program of user 0 that listens on \[::\]:7070/,
    );
    assert.match(
      await told("nowhere", "HostPortNotServed"),
      /^hostPort 80\/TCP of 198\.51\.100\.7 is not served: no interface of the node has this address/,
    );
    await serve("thief");
    assert.equal(await ask("tcp", ip, 7070), "thief");
    await machine.kubectl(["delete", "pod", "thief", "nowhere"]);
    // The API forgets a pod without a grace at once, the node a moment later.
    await eventually(async () => ((await ask("tcp", ip, 7070)) === "program" ? true : undefined), {
      timeoutMs: 20_000,
      describe: () => remora.output(),
    });

    // Ports outlive the agent, and the pods that have them are admitted again.
    await remora.signal("KILL");
    await remora.exited;
    assert.deepEqual(await answers(), ["pod1", "pod2", "pod3"]);
    remora = await remoraUp(machine);
    assert.deepEqual(await answers(), ["pod1", "pod2", "pod3"]);
    for (const name of ["pod1", "pod2", "pod3"]) {
      assert.equal((await show(name)).status.phase, "Running");
    }

    // Somebody's firewall starts from nothing: nobody has to restart anything.
    await machine.exec(["nft", "flush", "ruleset"]);
    await eventually(
      async () => ((await answers()).join() === "pod1,pod2,pod3" ? true : undefined),
      { timeoutMs: 20_000, describe: () => remora.output() },
    );

    // A pod that takes over at once; the one before may still be on its way out, and then it waits or is refused.
    await machine.kubectl(["delete", "pod", "pod2"]);
    await eventually(async () => ((await ask("tcp", ip)) === "pod2" ? undefined : true), {
      timeoutMs: 20_000,
      describe: () => remora.output(),
    });
    await create(pod("pod4", { hostPort: port, hostIP: ip }, mine));
    await machine.kubectl(["wait", "--for=condition=Ready", "pod", "pod4", "--timeout=60s"]);
    await serve("pod4");
    await eventually(
      async () => ((await answers()).join() === "pod1,pod4,pod3" ? true : undefined),
      {
        timeoutMs: 10_000,
        describe: async () => {
          const look =
            "nft list table ip remora-network; ip neigh; ip -br addr; conntrack -L -p tcp --dport 54323; kubectl get pods -o wide";
          const { stdout } = await machine.exec(["sh", "-c", look]);
          return `${(await answers()).join()}\n${stdout}\n${remora.output().slice(-6000)}`;
        },
      },
    );

    await remora.signal("TERM");
    await remora.exited;
    await remoraDown(machine);
    const left = await machine.exec(["sh", "-c", "nft list ruleset; iptables-save"]);
    assert.doesNotMatch(left.stdout, /remora/i);
  });
});
