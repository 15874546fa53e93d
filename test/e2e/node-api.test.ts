import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { eventually, type Machine, Machines, root } from "./lib/machine.ts";
import { cannotRun, joinArguments, remoraJoin, remoraUp } from "./lib/remora.ts";

const api = "https://172.30.0.1:10250";
const tokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token";

interface Container {
  readonly Id: string;
}

interface Inspected {
  readonly State: { readonly Pid: number };
}

/** A pod on `node` that only waits. */
function waiting(node: string): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: `on-${node}` },
    spec: {
      nodeName: node,
      terminationGracePeriodSeconds: 0,
      containers: [{ name: "c", image: "busybox:1.36", command: ["sleep", "1000"] }],
    },
  };
}

/** Any service account may scrape, and nothing else. */
const scraping = [
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRole",
    metadata: { name: "scraping" },
    rules: [{ apiGroups: [""], resources: ["nodes/metrics"], verbs: ["get"] }],
  },
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRoleBinding",
    metadata: { name: "scraping" },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "scraping" },
    subjects: [
      { kind: "Group", apiGroup: "rbac.authorization.k8s.io", name: "system:serviceaccounts" },
    ],
  },
];

describe("port 10250 of remora up", { skip: cannotRun() ?? false }, () => {
  let machines: Machines;
  let one: Machine;
  let two: Machine;

  before(async () => {
    machines = await Machines.start("na", 2);
    const [first, second] = machines.all;
    assert.ok(first !== undefined && second !== undefined);
    [one, two] = [first, second];
    await Promise.all([one.loadBusybox(), two.loadBusybox()]);
    await remoraUp(one);
    await run(waiting("node1"), ...scraping);
  });
  after(async () => {
    await machines[Symbol.asyncDispose]();
  });

  async function run(pod: object, ...others: readonly object[]): Promise<void> {
    const list = { apiVersion: "v1", kind: "List", items: [...others, pod] };
    await one.kubectl(["create", "-f", "-"], { stdin: JSON.stringify(list) });
    await one.kubectl(["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"]);
  }

  /** What a pod reads from a page of node1 with its own token. The program is this machine's, the network the pod's. */
  async function fromPod(machine: Machine, path: string): Promise<string> {
    const pod = `on-${machine.name}`;
    const script = ["exec", pod, "--", "cat", tokenFile];
    const token = (await one.kubectl(script)).stdout;
    const filters = { label: [`io.kubernetes.pod.name=${pod}`, "io.kubernetes.container.name=c"] };
    const query = `filters=${encodeURIComponent(JSON.stringify(filters))}`;
    const [container] = (await machine.docker("GET", `/containers/json?${query}`)) as Container[];
    const state = (await machine.docker("GET", `/containers/${container?.Id}/json`)) as Inspected;
    const program = `require("node:https").get(process.argv[1], { rejectUnauthorized: false,
        headers: { authorization: "Bearer " + process.argv[2] } }, (response) => {
      console.log(response.statusCode); response.pipe(process.stdout) })`;
    const argv = ["nsenter", "--net", "-t", String(state.State.Pid), `${root}/bin/node`, "-e"];
    return (await machine.exec([...argv, program, "--", `${api}${path}`, token])).stdout;
  }

  /** The status that somebody without a credential gets, or the code of what keeps them from it. */
  function knock(from: Machine | Machines): Promise<string> {
    const program = `require("node:https").get("${api}/pods", { rejectUnauthorized: false, timeout: 5000 }, (response) => {
      console.log(response.statusCode); process.exit() }).on("error", ({ code }) => console.log(code)).on("timeout", () => process.exit(1))`;
    const argv = [`${root}/bin/node`, "-e", program];
    const result = "client" in from ? from.client(argv) : from.exec(argv);
    return result.then(({ stdout }) => stdout.trim());
  }

  test("this machine gets an answer, another one and a client of the network do not", async () => {
    assert.equal(await knock(one), "401");
    assert.equal(await knock(two), "ECONNRESET");
    assert.equal(await knock(machines), "ECONNRESET");
  });

  test("a pod's token opens the pages its service account may see, at the node's address", async () => {
    assert.match(await fromPod(one, "/metrics"), /^kubelet_node_name\{node="node1"\} 1$/m);
    assert.match(await fromPod(one, "/metrics/resource"), /^node_memory_working_set_bytes /m);
    assert.match(await fromPod(one, "/pods"), /^403\n/);
    assert.match(await fromPod(one, "/exec/default/on-node1/c?command=id&output=1"), /^403\n/);
  });

  test("a machine that joins gets an answer, and so do its pods; the client still does not", async () => {
    await remoraJoin(two, await joinArguments(one));
    await one.kubectl(["wait", "--for=condition=Ready", "node/node2", "--timeout=60s"]);
    await eventually(async () => ((await knock(two)) === "401" ? true : undefined), {
      timeoutMs: 30_000,
      describe: () => "node2 is let in",
    });
    assert.equal(await knock(machines), "ECONNRESET");
    await run(waiting("node2"));
    assert.match(await fromPod(two, "/metrics"), /^kubelet_node_name\{node="node1"\} 1$/m);
    assert.match(await fromPod(two, "/healthz"), /^403\n/);
  });

  test("pages come through the API server, with its administrator's rights", async () => {
    const proxy = (node: string): string => `/api/v1/nodes/${node}/proxy`;
    for (const node of ["node1", "node2"]) {
      const health = await one.kubectl(["get", "--raw", `${proxy(node)}/healthz?verbose`]);
      assert.equal(health.stdout, "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n");
      const pods = await one.kubectl(["get", "--raw", `${proxy(node)}/pods`]);
      assert.match(pods.stdout, new RegExp(`"name":"on-${node}"`));
      const running = await one.kubectl(["get", "--raw", `${proxy(node)}/runningpods/`]);
      assert.match(running.stdout, new RegExp(`"name":"on-${node}"`));
      const status = await one.kubectl(["get", "--raw", `${proxy(node)}/statusz`]);
      assert.match(status.stdout, /^\nkubelet statusz\n/);
    }
  });
});
