import assert from "node:assert/strict";
import { after, before, describe, test, type TestContext } from "node:test";

import { Cluster, DoubleWatch, isReady, podContainers, type PodItem } from "./lib/cluster.ts";
import { eventually, type Machine, Machines, type MachineProcess } from "./lib/machine.ts";
import {
  cannotRun,
  joinArguments,
  remoraDown,
  remoraJoin,
  remoraUp,
  startAgent,
} from "./lib/remora.ts";
import { parseWho, type WhoAnswer, whoContainer, whoQuestion } from "./lib/who.ts";

const skip = cannotRun();
const copies = 4;

const tolerations = ["not-ready", "unreachable"].map((name) => ({
  key: `node.kubernetes.io/${name}`,
  operator: "Exists",
  effect: "NoExecute",
  tolerationSeconds: 5,
}));

const workload = {
  apiVersion: "v1",
  kind: "ReplicationController",
  metadata: { name: "who" },
  spec: {
    replicas: copies,
    selector: { app: "who" },
    template: {
      metadata: { labels: { app: "who" } },
      spec: {
        terminationGracePeriodSeconds: 2,
        tolerations,
        containers: [whoContainer()],
      },
    },
  },
};

const nodePort = 30_080;
const service = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "who" },
  spec: {
    type: "NodePort",
    selector: { app: "who" },
    ports: [{ port: 80, targetPort: 8080, nodePort }],
  },
};

interface SliceItem {
  readonly endpoints?: readonly {
    readonly nodeName?: string;
    readonly conditions?: { readonly ready?: boolean };
  }[];
}

type Asker = (address: string, port: number) => Promise<WhoAnswer | undefined>;

describe("two machines", { skip: skip ?? false, concurrency: false }, () => {
  let machines: Machines;
  let one: Machine;
  let two: Machine;
  let cluster: Cluster;
  let watch: DoubleWatch;
  let up: MachineProcess;
  let agent: MachineProcess;
  let joinArgs: readonly string[] = [];

  const fromMachine =
    (machine: Machine): Asker =>
    async (address, port) =>
      parseWho((await machine.exec(whoQuestion(address, port), { allowFailure: true })).stdout);
  const fromClient: Asker = async (address, port) =>
    parseWho((await machines.client(whoQuestion(address, port), { allowFailure: true })).stdout);
  const fromPod =
    (pod: PodItem): Asker =>
    async (address, port) => {
      const argv = ["exec", pod.metadata.name, "--", ...whoQuestion(address, port)];
      return parseWho((await one.kubectl(argv, { allowFailure: true })).stdout);
    };

  /** Asks until each of `names` has answered. */
  const allAnswer = async (
    ask: Asker,
    address: string,
    port: number,
    names: readonly string[],
  ): Promise<readonly WhoAnswer[]> => {
    const answers: WhoAnswer[] = [];
    await eventually(
      async () => {
        const answer = await ask(address, port);
        if (answer !== undefined) answers.push(answer);
        return names.every((name) => answers.some(({ by }) => by === name)) ? true : undefined;
      },
      {
        timeoutMs: 40_000,
        describe: () =>
          `${names.join(", ")} answer on ${address}:${port}: ${JSON.stringify(answers)}`,
      },
    );
    return answers;
  };

  const on = (pods: readonly PodItem[], machine: Machine): readonly PodItem[] =>
    pods.filter((pod) => pod.spec.nodeName === machine.name);

  /** Waits until exactly the wanted number of pods exists and all are ready. */
  const settled = async (): Promise<readonly PodItem[]> => {
    let pods: readonly PodItem[] = [];
    await cluster.until(`${copies} pods, all ready, and nothing else`, async () => {
      pods = await cluster.pods();
      return pods.length === copies && pods.every(isReady);
    });
    return pods;
  };

  /** Pods on both machines again. */
  const spread = async (): Promise<readonly PodItem[]> => {
    await one.kubectl(["scale", "rc", "who", "--replicas=0"]);
    await cluster.until("no pods", async () => (await cluster.pods()).length === 0);
    await one.kubectl(["scale", "rc", "who", `--replicas=${copies}`]);
    const pods = await settled();
    assert.deepEqual([on(pods, one).length, on(pods, two).length], [2, 2], "pods are spread");
    // The API server reaches the agent, whatever happened to it before.
    for (const { metadata } of on(pods, two)) {
      await one.kubectl(["exec", metadata.name, "--", "true"]);
    }
    return pods;
  };

  /** The engines run one sandbox and one container of each pod, on its node, and hold nothing of any other pod. */
  const enginesAgree = async (pods: readonly PodItem[]): Promise<void> => {
    const uids = new Set(pods.map(({ metadata }) => metadata.uid));
    const wanted = pods
      .flatMap(({ metadata, spec }) =>
        ["POD", "web"].map((name) => `${spec.nodeName ?? ""} ${metadata.name} ${name}`),
      )
      .toSorted();
    await cluster.until(
      "the engines run exactly the pods of the API",
      async () => {
        const all = (await Promise.all([one, two].map(podContainers))).flat();
        const have = all
          .filter(({ running }) => running)
          .map(({ container, machine, podName }) => `${machine.name} ${podName} ${container}`);
        return (
          all.every(({ podUID }) => uids.has(podUID)) &&
          JSON.stringify(have.toSorted()) === JSON.stringify(wanted)
        );
      },
      30_000,
    );
    assert.deepEqual(watch.doubles, []);
  };

  /** Waits until the second node is given up and its pods have been replaced on the first. Returns its former pods. */
  const givenUp = async (
    context: TestContext,
    what: string,
    before: readonly PodItem[],
  ): Promise<void> => {
    const lostMs = await cluster.until(
      "the node is not Ready",
      async () => (await cluster.ready(two.name)) === "Unknown",
      90_000,
    );
    context.diagnostic(`${what} -> NotReady: ${lostMs} ms`);
    const left = new Set(on(before, one).map(({ metadata }) => metadata.name));
    await cluster.until("endpoints on the lost node are out", async () => {
      const slices = await cluster.get<{ items: readonly SliceItem[] }>(
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=who",
      );
      const ready = slices.items
        .flatMap(({ endpoints }) => endpoints ?? [])
        .filter(({ conditions }) => conditions?.ready === true);
      return ready.length > 0 && ready.every(({ nodeName }) => nodeName === one.name);
    });
    const { spec } = await cluster.get<{ spec: { clusterIP: string } }>("service", "who");
    const gone = new Set(on(before, two).map(({ metadata }) => metadata.name));
    await cluster.until("the rules follow the endpoints", async () => {
      for (let times = 0; times < 20; times += 1) {
        const answer = await fromMachine(one)(spec.clusterIP, 80);
        if (answer === undefined || gone.has(answer.by)) return false;
      }
      return true;
    });
    const outside = await fromClient(one.address, nodePort);
    assert.ok(outside !== undefined && !gone.has(outside.by), "outside is served by the living");
    const replacedMs = await cluster.until("replacements run on the other node", async () => {
      const pods = await cluster.pods();
      return on(pods, one).filter(isReady).length === copies;
    });
    context.diagnostic(`NotReady -> ${copies} pods ready again: ${replacedMs} ms`);
    const pods = await cluster.pods();
    assert.ok(
      on(pods, one).filter(({ metadata }) => left.has(metadata.name)).length === left.size,
      "pods of the living node were left alone",
    );
    assert.deepEqual(
      new Set(on(pods, two).map(({ metadata }) => metadata.name)),
      gone,
      "the lost node's pods wait for its word",
    );
    assert.ok(on(pods, two).every(({ metadata }) => metadata.deletionTimestamp !== undefined));
  };

  /** Waits until the second node is Ready, without taints, and everything is exact. */
  const takenBack = async (context: TestContext, what: string): Promise<void> => {
    const readyMs = await cluster.until(
      "the node is Ready again",
      async () => (await cluster.ready(two.name)) === "True",
    );
    context.diagnostic(`${what} -> Ready: ${readyMs} ms`);
    const untaintedMs = await cluster.until(
      "the taints are gone",
      async () => ((await cluster.node(two.name)).spec.taints ?? []).length === 0,
    );
    const started = performance.now();
    const pods = await settled();
    assert.deepEqual(on(pods, two), []);
    await enginesAgree(pods);
    const exactMs = Math.round(performance.now() - started);
    context.diagnostic(`Ready -> no taints: ${untaintedMs} ms -> counts exact: ${exactMs} ms`);
    assert.ok(
      pods.every(({ status }) => status.containerStatuses?.[0]?.restartCount === 0),
      "nothing was restarted",
    );
  };

  const idsOn = async (machine: Machine): Promise<readonly string[]> =>
    (await podContainers(machine))
      .filter(({ running }) => running)
      .map(({ id }) => id)
      .toSorted();

  before(async () => {
    if (skip !== undefined) return;
    machines = await Machines.start("two", 2);
    [one, two] = machines.all as [Machine, Machine];
    await Promise.all(machines.all.map((machine) => machine.loadBusybox()));
    for (const machine of machines.all) {
      // As many distributions set it: packets from an address that does not lead back the same way are dropped.
      const strict = ["all", "eth0"].map((name) => `net.ipv4.conf.${name}.rp_filter=1`);
      await machine.exec(["sysctl", "-qw", ...strict]);
    }
    watch = new DoubleWatch(machines.all);
    cluster = new Cluster(one);
    up = await remoraUp(one);
    cluster.processes.push(up);
    joinArgs = await joinArguments(one);
    agent = await remoraJoin(two, joinArgs);
    cluster.processes.push(agent);
    await cluster.create(service, workload);
  });

  after(async () => {
    if (skip !== undefined) return;
    await watch[Symbol.asyncDispose]();
    await machines[Symbol.asyncDispose]();
  });

  test("pods are spread, and reach each other across machines under their own addresses", async () => {
    const pods = await settled();
    assert.deepEqual([on(pods, one).length, on(pods, two).length], [2, 2]);
    const [here] = on(pods, one);
    const [there] = on(pods, two);
    assert.ok(here !== undefined && there !== undefined);
    for (const [asker, answerer] of [
      [here, there],
      [there, here],
    ] as const) {
      const address = answerer.status.podIP ?? "";
      const answers = await allAnswer(fromPod(asker), address, 8080, [answerer.metadata.name]);
      assert.equal(answers.at(-1)?.from, asker.status.podIP, "the source address is kept");
    }
  });

  test("a route that somebody removes is back", async () => {
    const route = async (): Promise<string> =>
      (await one.exec(["ip", "route", "show", "proto", "82"])).stdout;
    const { spec } = await cluster.node(two.name);
    const before = await route();
    assert.match(before, new RegExp(`^${spec.podCIDR ?? "?"} via ${two.address} dev eth0`));
    await one.exec(["ip", "route", "flush", "proto", "82"]);
    await cluster.until("the route", async () => (await route()) === before, 10_000);
  });

  test("a Service answers with backends on both machines, from pods, nodes and outside", async () => {
    const pods = await settled();
    const names = pods.map(({ metadata }) => metadata.name);
    const { spec } = await cluster.get<{ spec: { clusterIP: string } }>("service", "who");
    const [here] = on(pods, one);
    const [there] = on(pods, two);
    assert.ok(here !== undefined && there !== undefined);
    for (const pod of [here, there]) {
      const answers = await allAnswer(fromPod(pod), spec.clusterIP, 80, names);
      for (const { from, by } of answers) {
        // A pod that reaches itself does so under another address, or the answer would not come back.
        if (by !== pod.metadata.name) assert.equal(from, pod.status.podIP);
      }
    }
    for (const machine of [one, two]) {
      await allAnswer(fromMachine(machine), spec.clusterIP, 80, names);
      await allAnswer(fromClient, machine.address, nodePort, names);
      await allAnswer(fromPod(here), machine.address, nodePort, names);
    }
  });

  test("kubectl logs, exec and port-forward reach a pod on the other machine", async () => {
    const [there] = on(await settled(), two);
    assert.ok(there !== undefined);
    const { name } = there.metadata;
    assert.match((await one.kubectl(["logs", name])).stdout, new RegExp(`started ${name}`));
    const said = await one.kubectl(["exec", "-i", name, "--", "cat"], { stdin: "through" });
    assert.equal(said.stdout, "through");
    const forward = one.spawn(["kubectl", "port-forward", name, "18080:8080"]);
    try {
      const answers = await allAnswer(fromMachine(one), "127.0.0.1", 18_080, [name]);
      assert.ok(answers.length > 0);
    } finally {
      await forward.signal("TERM");
      await forward.exited;
    }
  });

  test("a machine cut off is given up; its pods live on untouched, also when its agent is killed; back again, all is exact", async (context) => {
    const before = await spread();
    const running = await idsOn(two);
    await two.cut();
    await agent.signal("KILL");
    await agent.exited;
    agent = startAgent(two, joinArgs);
    cluster.processes.push(agent);
    await givenUp(context, "cut", before);
    assert.deepEqual(await idsOn(two), running, "nobody touched the pods of the lost machine");
    await two.restore();
    await takenBack(context, "restore");
  });

  test("a machine whose packets vanish is given up and taken back likewise", async (context) => {
    const before = await spread();
    const running = await idsOn(two);
    await two.mute();
    await givenUp(context, "mute", before);
    assert.deepEqual(await idsOn(two), running, "nobody touched the pods of the lost machine");
    await two.unmute();
    await takenBack(context, "unmute");
  });

  test("a short power cut restarts the pods of the machine once, and moves none", async (context) => {
    const before = await spread();
    await two.powerOff();
    await agent.exited;
    await two.boot();
    const started = performance.now();
    agent = await remoraJoin(two, joinArgs);
    cluster.processes.push(agent);
    context.diagnostic(`agent started -> Ready: ${Math.round(performance.now() - started)} ms`);
    const uids = (pods: readonly PodItem[]): readonly string[] =>
      pods.map(({ metadata, spec }) => `${spec.nodeName ?? ""} ${metadata.uid}`).toSorted();
    let pods = before;
    const restartedMs = await cluster.until("its pods run again", async () => {
      pods = await cluster.pods();
      const restarts = on(pods, two).map(
        ({ status }) => status.containerStatuses?.[0]?.restartCount,
      );
      return pods.every(isReady) && restarts.every((count) => count === 1);
    });
    context.diagnostic(`Ready -> its pods run again: ${restartedMs} ms`);
    assert.deepEqual(uids(pods), uids(before));
    assert.ok(
      on(pods, one).every(({ status }) => status.containerStatuses?.[0]?.restartCount === 0),
    );
    await enginesAgree(pods);
    const { spec } = await cluster.get<{ spec: { clusterIP: string } }>("service", "who");
    const names = pods.map(({ metadata }) => metadata.name);
    await allAnswer(fromMachine(two), spec.clusterIP, 80, names);
  });

  test("a machine without power is given up; what was evicted is cleaned up when it boots", async (context) => {
    const before = await spread();
    await two.powerOff();
    await agent.exited;
    await givenUp(context, "power off", before);
    await two.boot();
    agent = startAgent(two, joinArgs);
    cluster.processes.push(agent);
    await takenBack(context, "boot");
  });

  test("afterwards nothing is left", async () => {
    assert.ok(watch.looks > 100, "the engines were looked at all the time");
    assert.deepEqual(watch.doubles, []);
    await one.kubectl(["delete", "rc/who", "service/who"]);
    await cluster.until("no pods", async () => (await cluster.pods()).length === 0);
    await agent.signal("TERM");
    assert.equal(await agent.exited, 0, agent.output());
    assert.match(await remoraDown(two, ["--root-dir", "/var/lib/kubelet"]), /nothing is left/);
    await one.kubectl(["delete", "node", two.name]);
    await cluster.until("the route to the deleted node is gone", async () => {
      const { stdout } = await one.exec(["ip", "route", "show", "proto", "82"]);
      return stdout === "";
    });
    await up.signal("TERM");
    assert.equal(await up.exited, 0, up.output());
    assert.match(await remoraDown(one), /nothing is left/);
  });
});
