import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Cluster } from "./lib/cluster.ts";
import { eventually, Machine, type MachineProcess, root } from "./lib/machine.ts";
import { cannotRun } from "./lib/remora.ts";

const skip = cannotRun();
const dns = "10.96.0.10";
const name = "kubernetes.default.svc.cluster.local";
/** The heartbeat is renewed once a second, and said to be late after two. */
const config = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
nodeLeaseDurationSeconds: 4
`;
/** Of one flood. */
const seconds = 10;

function pod(podName: string, more: object = {}): object {
  const container = { name: "c", image: "docker.io/library/busybox:1.36", ...more };
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: podName },
    spec: {
      terminationGracePeriodSeconds: 0,
      containers: [{ command: ["sleep", "100000"], ...container }],
    },
  };
}

const probe = { periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 1 };
const pods = [
  pod("flooder"),
  pod("asker"),
  pod("by-exec", { livenessProbe: { exec: { command: ["true"] }, ...probe } }),
  pod("by-http", {
    command: ["httpd", "-f", "-p", "8080", "-h", "/etc"],
    livenessProbe: { httpGet: { path: "/passwd", port: 8080 }, ...probe },
    readinessProbe: { httpGet: { path: "/passwd", port: 8080 }, ...probe },
  }),
];

interface Asked {
  readonly asked: number;
  readonly answered: number;
  readonly retried: number;
}

interface Listed {
  readonly Id: string;
}

interface Inspected {
  readonly State: { readonly Pid: number };
}

describe("a pod that floods its node", { skip: skip ?? false, concurrency: false }, () => {
  let machine: Machine;
  let cluster: Cluster;
  let remora: MachineProcess;
  let addresses: ReadonlyMap<string, string>;

  before(async () => {
    if (skip !== undefined) return;
    machine = await Machine.start("fl");
    await machine.loadBusybox();
    const file = "/run/remora-config.yaml";
    await machine.exec(["sh", "-c", 'cat >"$0"', file], { stdin: config });
    remora = machine.spawn([`${root}/bin/remora`, "up", "--config", file]);
    cluster = new Cluster(machine);
    cluster.processes.push(remora);
    await eventually(async () => (/^Next: kubectl/m.test(remora.output()) ? true : undefined), {
      timeoutMs: 60_000,
      describe: () => remora.output(),
    });
    await cluster.create(...pods);
    await machine.kubectl(["wait", "--for=condition=Ready", "pods", "--all", "--timeout=90s"]);
    addresses = new Map(
      (await cluster.pods()).map(({ metadata, status }) => [metadata.name, status.podIP ?? ""]),
    );
  });

  after(async () => {
    if (skip !== undefined) return;
    await machine[Symbol.asyncDispose]();
  });

  /** A program of this machine in the network of a pod. */
  async function inside(podName: string, program: string, ...args: readonly string[]) {
    const filters = { label: [`io.kubernetes.pod.name=${podName}`] };
    const query = `filters=${encodeURIComponent(JSON.stringify(filters))}`;
    const [container] = (await machine.docker("GET", `/containers/json?${query}`)) as Listed[];
    const state = (await machine.docker("GET", `/containers/${container?.Id}/json`)) as Inspected;
    const enter = ["nsenter", "--net", "-t", String(state.State.Pid)];
    if (program === "nft") return machine.spawn([...enter, "nft", ...args]);
    return machine.spawn([
      ...enter,
      `${root}/bin/node`,
      `${root}/test/e2e/lib/${program}.ts`,
      ...args,
    ]);
  }

  /** The sum of a metric over the samples whose labels hold all of `having`. */
  function sumOf(metrics: string, metric: string, ...having: readonly string[]): number {
    return metrics
      .split("\n")
      .filter((line) => line.startsWith(`${metric}{`) || line.startsWith(`${metric} `))
      .filter((line) => having.every((text) => line.includes(text)))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
  }

  async function metricsOf(page: string): Promise<string> {
    const path = `/api/v1/nodes/${machine.name}/proxy/metrics${page}`;
    return (await machine.kubectl(["get", "--raw", path])).stdout;
  }

  /** Of Services and names. */
  async function metricsOfProxy(): Promise<string> {
    const page = "http://127.0.0.1:10249/metrics";
    return (await machine.exec(["busybox", "wget", "-qO-", page])).stdout;
  }

  async function figures() {
    const [node, probes] = [await metricsOf(""), await metricsOf("/probes")];
    const names = await metricsOfProxy();
    return {
      at: performance.now(),
      renewals: sumOf(node, "remora_lease_renewals_total"),
      limited: sumOf(names, "remora_dns_limited_total"),
      replies: sumOf(names, "coredns_dns_responses_total"),
      good: sumOf(probes, "prober_probe_total", 'result="successful"'),
      bad:
        sumOf(probes, "prober_probe_total") -
        sumOf(probes, "prober_probe_total", 'result="successful"'),
    };
  }

  /** Runs a flood while another pod asks; neither that pod nor the node may notice. @returns What was counted. */
  async function during(transport: "udp" | "tcp", flood: () => Promise<readonly MachineProcess[]>) {
    const asker = await inside("asker", "ask-often", dns, name, transport);
    const before = await figures();
    const said = remora.output().length;
    const floods = await flood();
    const ends = await Promise.all(floods.map(({ exited }) => exited));
    assert.ok(
      ends.every((code) => code === 0),
      floods.map((one) => one.output()).join("\n"),
    );
    const now = await figures();
    await asker.signal("TERM");
    await asker.exited;
    const asked = JSON.parse(asker.output()) as Asked;
    const elapsedSeconds = (now.at - before.at) / 1000;
    const counted = {
      renewals: now.renewals - before.renewals,
      good: now.good - before.good,
      bad: now.bad - before.bad,
      limited: now.limited - before.limited,
      replies: now.replies - before.replies,
      ...asked,
      elapsedSeconds: Math.round(elapsedSeconds * 10) / 10,
    };
    const text = JSON.stringify(counted);
    // A quarter of four seconds and 4 % at most; one may be under way at either end.
    assert.ok(counted.renewals >= Math.floor(elapsedSeconds / 1.04) - 1, text);
    assert.doesNotMatch(remora.output().slice(said), /lease was (?:renewed late|not renewed)/);
    assert.equal(counted.bad, 0, text);
    // Three probes a second; a look takes its time too.
    assert.ok(counted.good >= elapsedSeconds, text);
    // Where the flood takes the machine's processors from all, the kernel drops questions before they are looked at.
    assert.ok(asked.asked > 10 && asked.answered >= asked.asked * 0.9, text);
    for (const { metadata, status } of await cluster.pods()) {
      assert.equal(status.containerStatuses?.[0]?.restartCount, 0, metadata.name);
    }
    return counted;
  }

  const sent = (floods: readonly MachineProcess[]): number =>
    floods.reduce((sum, one) => sum + (JSON.parse(one.output()) as { sent: number }).sent, 0);

  test("50 000 questions a second: only the flooder goes without answers", async (t) => {
    let floods: readonly MachineProcess[] = [];
    const counted = await during("udp", async () => {
      const one = () => inside("flooder", "flood", "udp", dns, "53", "25000", String(seconds));
      return (floods = [await one(), await one()]);
    });
    t.diagnostic(`sent ${sent(floods)} ${JSON.stringify(counted)}`);
    assert.ok(sent(floods) >= 25_000 * seconds, "there was no flood");
    // What one address may ask, and what the other pod asked.
    const most = 10_000 * (counted.elapsedSeconds + 1) + counted.asked + counted.retried;
    assert.ok(counted.replies <= most, JSON.stringify(counted));
  });

  test("connections that never end their question: others get theirs", async (t) => {
    let holder: MachineProcess | undefined;
    const counted = await during("tcp", async () => {
      holder = await inside("flooder", "flood", "hold", dns, "53", "700", "6");
      return [holder];
    });
    const [, last = "{}"] = (holder?.output() ?? "").trim().split("\n");
    t.diagnostic(`${last} ${JSON.stringify(counted)}`);
    const { open, opened } = JSON.parse(last) as { open: number; opened: number };
    assert.ok(opened >= 600, "there was no flood");
    assert.ok(open <= 64, `${open} of one pod are kept`);
  });

  test("first packets of connections that never come: others get theirs", async (t) => {
    const from = addresses.get("flooder") ?? "";
    // Else the pod's kernel takes each attempt back.
    const quiet = [
      "add table ip quiet",
      "add chain ip quiet out { type filter hook output priority 0; }",
      "add rule ip quiet out tcp flags rst drop",
    ].join("; ");
    assert.equal(await (await inside("flooder", "nft", quiet)).exited, 0);
    let floods: readonly MachineProcess[] = [];
    const counted = await during("tcp", async () => {
      return (floods = [await inside("flooder", "flood", "syn", from, dns, "53", "60000")]);
    });
    t.diagnostic(`sent ${sent(floods)} ${JSON.stringify(counted)}`);
    assert.ok(sent(floods) >= 60_000);
  });

  test("50 000 datagrams a second to port 10250", async (t) => {
    let floods: readonly MachineProcess[] = [];
    const to = machine.address;
    const counted = await during("udp", async () => {
      const one = () => inside("flooder", "flood", "udp", to, "10250", "25000", String(seconds));
      return (floods = [await one(), await one()]);
    });
    t.diagnostic(`sent ${sent(floods)} ${JSON.stringify(counted)}`);
  });

  test("a pod with a bandwidth floods within it, and leaves no trace of it", async (t) => {
    const bitsPerSecond = 2_000_000;
    const limited = pod("limited") as { metadata: object };
    const annotations = { "kubernetes.io/egress-bandwidth": "2M" };
    await cluster.create({ ...limited, metadata: { ...limited.metadata, annotations } });
    await machine.kubectl(["wait", "--for=condition=Ready", "pod/limited", "--timeout=60s"]);
    const devices = async (): Promise<readonly string[]> => {
      const { stdout } = await machine.exec(["ip", "-o", "link", "show", "type", "ifb"]);
      return [...stdout.matchAll(/ (rmb\w+):/g)].map(([, device = ""]) => device);
    };
    const [device = "none"] = await devices();
    const passed = async (): Promise<{ bytes: number; dropped: number }> => {
      const { stdout } = await machine.exec(["tc", "-s", "qdisc", "show", "dev", device, "root"]);
      const [, bytes, dropped] = /Sent (\d+) bytes .*dropped (\d+)/.exec(stdout) ?? [];
      return { bytes: Number(bytes), dropped: Number(dropped) };
    };
    const [before, at] = [await passed(), performance.now()];
    const flood = await inside("limited", "flood", "udp", machine.address, "10250", "25000", "3");
    assert.equal(await flood.exited, 0);
    const now = await passed();
    const ms = performance.now() - at;
    const bytes = now.bytes - before.bytes;
    t.diagnostic(`${bytes} bytes in ${Math.round(ms)} ms, ${now.dropped} packets dropped`);
    // What may be sent at once: 25 ms or ten packets.
    assert.ok(bytes > 0 && bytes <= 15_000 + ((ms * bitsPerSecond) / 8000) * 1.05, `${bytes}`);
    assert.ok(now.dropped > 1000, "there was no flood");
    await machine.kubectl(["delete", "pod", "limited"]);
    await cluster.until("its device is gone", async () => (await devices()).length === 0);
  });
});
