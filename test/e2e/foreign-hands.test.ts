import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import type { Pod } from "../../src/api/types.gen.ts";
import { eventually, Machine, type MachineProcess } from "./lib/machine.ts";
import { cannotRun, remoraDown, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();
const image = "docker.io/library/busybox:1.36";
const obedient = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"];

/** What a hand meets: one pod that is Ready, with an init container that has ended. */
interface Patient {
  readonly name: string;
  readonly before: Pod;
  readonly containerID: string;
  readonly sandboxID: string;
}

interface Hand {
  readonly name: string;
  /** Merged into the container; default: one that obeys SIGTERM. */
  readonly container?: Readonly<Record<string, unknown>>;
  /** A name of the case's own image, which is the usual one under another name. */
  readonly image?: string;
  readonly does: (patient: Patient) => Promise<void>;
  /** Throws until the pod is what it should be. */
  readonly expect: (pod: Pod, patient: Patient) => void | Promise<void>;
  /** Reasons of events, each at least as often as it is named. */
  readonly events?: readonly string[];
  readonly noEvents?: readonly string[];
  /** Default: 60 s. */
  readonly timeoutMs?: number;
}

describe("what others do to the engine's things", { skip: skip ?? false }, () => {
  let machine: Machine;
  let remora: MachineProcess;

  before(async () => {
    machine = await Machine.start("hands");
    await machine.loadBusybox();
    remora = await remoraUp(machine);
    // Keeps the usual image in use, so that a prune leaves it.
    const spec = { containers: [{ name: "anchor", image, command: obedient }] };
    const anchor = { apiVersion: "v1", kind: "Pod", metadata: { name: "anchor" }, spec };
    await machine.kubectl(["create", "-f", "-"], { stdin: JSON.stringify(anchor) });
  });

  after(async () => {
    await machine.kubectl(["delete", "pods", "--all", "--timeout=60s"]);
    await remora.signal("TERM");
    await remora.exited;
    const left = await remoraDown(machine);
    await machine[Symbol.asyncDispose]();
    assert.match(left, /nothing is left/);
  });

  const docker = async (...argv: string[]): Promise<string> =>
    (await machine.exec(["docker", ...argv])).stdout.trim();

  const podNamed = async (name: string): Promise<Pod> =>
    JSON.parse((await machine.kubectl(["get", "pod", name, "-o", "json"])).stdout) as Pod;

  const reasonsOf = async (name: string): Promise<readonly string[]> => {
    const { stdout } = await machine.kubectl([
      "get",
      "events",
      `--field-selector=involvedObject.name=${name}`,
      "-o",
      'jsonpath={range .items[*]}{.reason} {.count}{"\\n"}{end}',
    ]);
    return stdout.split("\n").flatMap((line) => {
      const [reason = "", count = "1"] = line.split(" ");
      return reason === "" ? [] : Array.from({ length: Number(count) }, () => reason);
    });
  };

  const running = async (name: string, type: "container" | "podsandbox"): Promise<string[]> => {
    const { metadata } = await podNamed(name);
    const uid = `label=io.kubernetes.pod.uid=${metadata?.uid ?? ""}`;
    const kind = `label=io.kubernetes.docker.type=${type}`;
    const ids = await docker("ps", "--no-trunc", "-q", "--filter", uid, "--filter", kind);
    return ids === "" ? [] : ids.split("\n");
  };

  const start = async (hand: Hand, name: string): Promise<Patient> => {
    const own = hand.image ?? image;
    await machine.kubectl(["create", "-f", "-"], {
      stdin: JSON.stringify({
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name },
        spec: {
          terminationGracePeriodSeconds: 2,
          initContainers: [{ name: "init", image: own, command: ["true"] }],
          containers: [{ name: "web", image: own, command: obedient, ...hand.container }],
        },
      }),
    });
    await machine.kubectl(["wait", "--for=condition=Ready", `pod/${name}`, "--timeout=60s"]);
    const before = await podNamed(name);
    const [containerID = ""] = await running(name, "container");
    const [sandboxID = ""] = await running(name, "podsandbox");
    return { name, before, containerID, sandboxID };
  };

  const isReady = ({ status }: Pod): boolean =>
    (status?.conditions ?? []).some((each) => each.type === "Ready" && each.status === "True");

  /** Ready, one sandbox, one container, which is the one that the status tells of. */
  const isWhole = async (pod: Pod, { name }: Patient): Promise<void> => {
    assert(isReady(pod), "not Ready");
    const containers = await running(name, "container");
    assert.equal(containers.length, 1, "containers that run");
    assert.equal((await running(name, "podsandbox")).length, 1, "sandboxes that run");
    const [status] = pod.status?.containerStatuses ?? [];
    assert.equal(status?.containerID, `docker://${containers[0] ?? ""}`);
    const { podIP = "" } = pod.status ?? {};
    await machine.exec(["busybox", "ping", "-c1", "-W1", podIP]);
  };

  const restarted =
    (exitCode: number | undefined, reason: string) =>
    async (pod: Pod, patient: Patient): Promise<void> => {
      await isWhole(pod, patient);
      const [status] = pod.status?.containerStatuses ?? [];
      assert.equal(status?.restartCount, 1);
      const last = status.lastState?.terminated;
      assert.equal(last?.reason, reason);
      if (exitCode !== undefined) assert.equal(last.exitCode, exitCode);
      assert.equal(pod.status?.podIP, patient.before.status?.podIP, "address");
    };

  const untouched = async (pod: Pod, patient: Patient): Promise<void> => {
    await isWhole(pod, patient);
    const [status] = pod.status?.containerStatuses ?? [];
    assert.equal(status?.restartCount, 0);
    assert.equal(status.containerID, `docker://${patient.containerID}`);
    assert.equal(pod.status?.podIP, patient.before.status?.podIP, "address");
  };

  const newSandbox = async (pod: Pod, patient: Patient): Promise<void> => {
    await isWhole(pod, patient);
    const [status] = pod.status?.containerStatuses ?? [];
    assert.equal(status?.restartCount, 1);
    assert.notEqual((await running(patient.name, "podsandbox"))[0], patient.sandboxID);
    const [init] = pod.status?.initContainerStatuses ?? [];
    assert.equal(init?.state?.terminated?.reason, "Completed");
    assert.notEqual(
      init?.containerID,
      patient.before.status?.initContainerStatuses?.[0]?.containerID,
    );
  };

  const inSandbox = ["Started", "Started", "SandboxChanged", "Started", "Started"];
  const liveness = { exec: { command: ["true"] }, periodSeconds: 1, failureThreshold: 2 };

  const hands: readonly Hand[] = [
    {
      name: "docker stop of a container",
      does: ({ containerID }) => docker("stop", "-t", "5", containerID).then(() => undefined),
      expect: restarted(0, "Completed"),
      events: ["Started", "Started", "Started"],
      noEvents: ["SandboxChanged"],
    },
    {
      name: "docker kill of a container",
      does: ({ containerID }) => docker("kill", containerID).then(() => undefined),
      expect: restarted(137, "Error"),
      noEvents: ["SandboxChanged"],
    },
    {
      name: "docker rm -f of a container",
      does: ({ containerID }) => docker("rm", "-f", containerID).then(() => undefined),
      expect: async (pod, patient) => {
        const reason = pod.status?.containerStatuses?.[0]?.lastState?.terminated?.reason;
        await restarted(137, reason === "Error" ? "Error" : "ContainerStatusUnknown")(pod, patient);
      },
      noEvents: ["SandboxChanged"],
    },
    {
      name: "docker restart of a container",
      does: ({ containerID }) => docker("restart", "-t", "5", containerID).then(() => undefined),
      expect: async (pod, patient) => {
        await isWhole(pod, patient);
        const [status] = pod.status?.containerStatuses ?? [];
        // The engine may be faster than the look: then it is the same container.
        assert.equal(
          status?.restartCount,
          Number(status?.containerID !== `docker://${patient.containerID}`),
        );
      },
      noEvents: ["SandboxChanged"],
    },
    {
      name: "docker start of a container whose successor runs",
      does: async ({ containerID, name }) => {
        await docker("kill", containerID);
        const successor = async (): Promise<true | undefined> => {
          const [id] = await running(name, "container");
          return id === undefined || id === containerID ? undefined : true;
        };
        await eventually(successor, { timeoutMs: 20_000, describe: () => remora.output() });
        await docker("start", containerID);
      },
      expect: async (pod, patient) => {
        // Its second run is the one that ended last: it obeyed.
        await restarted(0, "Completed")(pod, patient);
        assert(!(await running(patient.name, "container")).includes(patient.containerID));
      },
      // Sooner than the regular look.
      timeoutMs: 15_000,
      events: ["Killing"],
      noEvents: ["SandboxChanged"],
    },
    {
      name: "docker pause of a container with a liveness probe",
      container: { livenessProbe: liveness },
      does: ({ containerID }) => docker("pause", containerID).then(() => undefined),
      expect: restarted(undefined, "Completed"),
      events: ["Unhealthy", "Killing"],
    },
    {
      name: "docker pause of a container without probes",
      does: ({ containerID }) => docker("pause", containerID).then(() => undefined),
      expect: async (pod, patient) => {
        await untouched(pod, patient);
        assert.match(
          await docker("inspect", "-f", "{{.State.Status}}", patient.containerID),
          /paused/,
        );
      },
      noEvents: ["Killing", "SandboxChanged"],
    },
    {
      name: "docker rename of a container",
      does: ({ containerID }) => docker("rename", containerID, "mine").then(() => undefined),
      expect: untouched,
      noEvents: ["Killing"],
    },
    {
      name: "docker rename of a container, then its death",
      does: async ({ containerID }) => {
        await docker("rename", containerID, "mine-too");
        await docker("kill", containerID);
      },
      expect: restarted(137, "Error"),
    },
    {
      name: "docker update of a container",
      container: { resources: { limits: { memory: "64Mi", cpu: "500m" } } },
      does: async ({ containerID }) => {
        await docker("update", "--memory", "32m", "--memory-swap", "32m", containerID);
        await docker("update", "--cpu-quota", "20000", containerID);
      },
      expect: async (pod, patient) => {
        await untouched(pod, patient);
        const format = "{{.HostConfig.Memory}} {{.HostConfig.CpuQuota}}";
        const limits = await docker("inspect", "-f", format, patient.containerID);
        assert.equal(limits, `${64 * 2 ** 20} 50000`);
      },
    },
    {
      name: "docker update --restart=always of a container, then its end",
      does: async ({ containerID }) => {
        const policy = ["inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", containerID];
        await docker("update", "--restart=always", containerID);
        const taken = async (): Promise<true | undefined> =>
          (await docker(...policy)) === "no" ? true : undefined;
        await eventually(taken, { timeoutMs: 20_000, describe: () => remora.output() });
        const kill = ["docker", "exec", containerID, "kill", "-TERM", "1"];
        // It dies with what it kills.
        await machine.exec(kill, { allowFailure: true });
      },
      expect: restarted(0, "Completed"),
    },
    {
      name: "docker stop of a sandbox",
      does: ({ sandboxID }) => docker("stop", "-t", "1", sandboxID).then(() => undefined),
      expect: newSandbox,
      events: inSandbox,
    },
    {
      name: "docker kill of a sandbox",
      does: ({ sandboxID }) => docker("kill", sandboxID).then(() => undefined),
      expect: newSandbox,
      events: inSandbox,
    },
    {
      name: "docker rm -f of a sandbox",
      does: ({ sandboxID }) => docker("rm", "-f", sandboxID).then(() => undefined),
      expect: newSandbox,
      events: inSandbox,
    },
    {
      name: "docker restart of a sandbox",
      does: ({ sandboxID }) => docker("restart", "-t", "1", sandboxID).then(() => undefined),
      expect: newSandbox,
      events: inSandbox,
    },
    {
      name: "docker pause of a sandbox",
      does: ({ sandboxID }) => docker("pause", sandboxID).then(() => undefined),
      expect: untouched,
      noEvents: ["SandboxChanged"],
    },
    {
      name: "docker rename and update of a sandbox",
      does: async ({ sandboxID }) => {
        await docker("rename", sandboxID, "my-pause");
        await docker("update", "--cpu-shares", "1000", sandboxID);
      },
      expect: untouched,
      noEvents: ["SandboxChanged"],
    },
    {
      name: "a sandbox taken off its network",
      does: async ({ sandboxID }) => {
        await machine.exec(["docker", "network", "disconnect", "-f", "none", sandboxID], {
          allowFailure: true,
        });
      },
      expect: untouched,
      noEvents: ["SandboxChanged"],
    },
    {
      name: "the pod's interface deleted",
      does: async ({ sandboxID }) => {
        const pid = await docker("inspect", "-f", "{{.State.Pid}}", sandboxID);
        const inside = ["nsenter", "-t", pid, "-n", "ip", "-o", "link", "show", "eth0"];
        const peer = / eth0@if(\d+)/.exec((await machine.exec(inside)).stdout)?.[1] ?? "none";
        const { stdout } = await machine.exec(["ip", "-o", "link"]);
        const line = stdout.split("\n").find((each) => each.startsWith(`${peer}: `)) ?? "";
        await machine.exec(["ip", "link", "del", /^\d+: ([^@:]+)/.exec(line)?.[1] ?? "none"]);
      },
      expect: isWhole,
    },
    {
      name: "the bridge deleted",
      does: async () => {
        await machine.exec(["ip", "link", "del", "remora0"]);
      },
      // The next repair of the node's network makes the bridge, the one after it brings the pods back to it.
      timeoutMs: 90_000,
      expect: isWhole,
    },
    {
      name: "out of memory",
      container: {
        resources: { limits: { memory: "32Mi" } },
        command: [
          "sh",
          "-c",
          "while [ ! -e /tmp/go ]; do sleep 0.1; done; exec dd if=/dev/zero of=/dev/null bs=200M",
        ],
      },
      does: ({ containerID }) =>
        docker("exec", containerID, "touch", "/tmp/go").then(() => undefined),
      expect: restarted(137, "OOMKilled"),
    },
    {
      name: "the shim of a container killed",
      does: async ({ containerID }) => {
        const pid = await docker("inspect", "-f", "{{.State.Pid}}", containerID);
        const { stdout } = await machine.exec(["cat", `/proc/${pid}/status`]);
        await machine.exec(["kill", "-9", /^PPid:\s+(\d+)$/m.exec(stdout)?.[1] ?? "none"]);
      },
      expect: restarted(undefined, "Error"),
      noEvents: ["SandboxChanged"],
    },
    {
      name: "docker rmi -f of an image in use, then the death of the container",
      image: "docker.io/library/mine:1",
      does: async ({ containerID }) => {
        await docker("rmi", "-f", "mine:1");
        await docker("kill", containerID);
      },
      expect: async (pod, patient) => {
        const [status] = pod.status?.containerStatuses ?? [];
        if (status?.state?.waiting !== undefined) {
          assert.match(status.state.waiting.reason ?? "", /^(ErrImagePull|ImagePullBackOff)$/);
          assert.equal(status.lastState?.terminated?.exitCode, 137);
          await docker("tag", image, "mine:1");
        }
        await restarted(137, "Error")(pod, patient);
      },
      events: ["Pulling", "Failed"],
    },
    {
      name: "docker system prune -a while a container waits in its crash loop",
      container: { command: ["sh", "-c", "echo why; sleep 2; exit 3"] },
      does: async ({ name }) => {
        const inLoop = async (): Promise<true | undefined> => {
          const [status] = (await podNamed(name)).status?.containerStatuses ?? [];
          const wait = status?.state?.waiting;
          return wait?.reason === "CrashLoopBackOff" && status?.restartCount === 2
            ? true
            : undefined;
        };
        await eventually(inLoop, { timeoutMs: 60_000, describe: () => remora.output() });
        await docker("system", "prune", "-a", "-f");
        const { stdout } = await machine.kubectl(["logs", "--previous", name]);
        assert.equal(stdout, "why\n");
      },
      expect: (pod) => {
        const [status] = pod.status?.containerStatuses ?? [];
        assert.equal(status?.restartCount, 3);
        assert.match(status.state?.waiting?.message ?? "", /^back-off 40s restarting/);
        assert.equal(status.lastState?.terminated?.exitCode, 3);
      },
      noEvents: ["SandboxChanged"],
    },
    {
      name: "dockerd restarted with live-restore",
      does: async () => {
        await machine.crashDockerd();
        await machine.startDockerd();
      },
      expect: untouched,
      noEvents: ["SandboxChanged", "Killing"],
    },
    {
      name: "dockerd restarted without live-restore",
      does: async () => {
        await machine.crashDockerd();
        await machine.startDockerd(["--bridge=none"]);
      },
      expect: newSandbox,
      events: inSandbox,
    },
  ];

  test("kill -9 of the agent: the pod stays ready, its EndpointSlice is not touched", async () => {
    const probe = { exec: { command: ["cat", "/tmp/ready"] }, periodSeconds: 2 };
    const container = {
      name: "web",
      image,
      command: ["sh", "-c", "touch /tmp/ready /tmp/started; exec sleep 1000"],
      ports: [{ containerPort: 80 }],
      readinessProbe: probe,
      // Would fail now: what has started is not asked again by the next agent.
      startupProbe: { exec: { command: ["rm", "/tmp/started"] }, failureThreshold: 5 },
    };
    const metadata = { name: "steady", labels: { app: "steady" } };
    const spec = { terminationGracePeriodSeconds: 1, containers: [container] };
    const service = { selector: { app: "steady" }, ports: [{ port: 80 }] };
    const items = [
      { apiVersion: "v1", kind: "Pod", metadata, spec },
      { apiVersion: "v1", kind: "Service", metadata, spec: service },
    ];
    await machine.kubectl(["create", "-f", "-"], {
      stdin: JSON.stringify({ apiVersion: "v1", kind: "List", items }),
    });
    await machine.kubectl(["wait", "--for=condition=Ready", "pod/steady", "--timeout=60s"]);
    const slice = async (): Promise<string | undefined> => {
      const format =
        "jsonpath={.items[0].metadata.uid} {.items[0].metadata.generation} {.items[0].endpoints}";
      const list = [
        "get",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=steady",
        "-o",
        format,
      ];
      const { stdout } = await machine.kubectl(list);
      return stdout.includes('"ready":true') ? stdout : undefined;
    };
    const options = { timeoutMs: 20_000, describe: () => remora.output() };
    const before = await eventually(slice, options);
    const readySince = ({ status }: Pod): string | undefined =>
      status?.conditions?.find(({ type }) => type === "Ready")?.lastTransitionTime;
    const pod = await podNamed("steady");
    // Transition times are whole seconds.
    await delay(1100);
    await remora.signal("KILL");
    await remora.exited;
    remora = await remoraUp(machine);
    // Longer than the period: the new agent has probed.
    await delay(5000);
    const later = await podNamed("steady");
    assert(isReady(later));
    assert.equal(readySince(later), readySince(pod));
    assert.equal(later.status?.containerStatuses?.[0]?.restartCount, 0);
    assert.equal(await slice(), before);
    // The probe does count: without its file the pod leaves the Service.
    await machine.kubectl(["exec", "steady", "--", "rm", "/tmp/ready"]);
    await eventually(async () => (isReady(await podNamed("steady")) ? undefined : true), options);
    await machine.kubectl(["delete", "pod,service", "steady"]);
  });

  for (const [index, hand] of hands.entries()) {
    test(hand.name, async () => {
      const name = `hand-${index}`;
      if (hand.image !== undefined) await docker("tag", image, hand.image);
      const patient = await start(hand, name);
      await hand.does(patient);
      await eventually(
        async () => {
          await hand.expect(await podNamed(name), patient);
          return true;
        },
        {
          timeoutMs: hand.timeoutMs ?? 60_000,
          describe: async () => {
            const { stdout } = await machine.kubectl(["describe", "pod", name]);
            const all = await docker("ps", "-a", "--format", "{{.Names}} {{.Status}}");
            return `${stdout}\n${all}\n${remora.output().slice(-3000)}`;
          },
        },
      );
      // Events follow what they tell of by a moment.
      await eventually(
        async () => {
          const reasons = [...(await reasonsOf(name))];
          for (const reason of hand.events ?? []) {
            const at = reasons.indexOf(reason);
            if (at < 0) return undefined;
            reasons.splice(at, 1);
          }
          return true;
        },
        {
          timeoutMs: 10_000,
          describe: async () =>
            `not all of ${(hand.events ?? []).join(" ")} among ${(await reasonsOf(name)).join(" ")}`,
        },
      );
      const seen = await reasonsOf(name);
      for (const reason of hand.noEvents ?? []) assert(!seen.includes(reason), reason);
      await machine.kubectl(["delete", "pod", name, "--timeout=30s"]);
      if (hand.image !== undefined) await docker("rmi", "-f", hand.image);
      assert.equal(
        await docker("ps", "-aq", "--filter", `label=io.kubernetes.pod.name=${name}`),
        "",
      );
    });
  }
});
