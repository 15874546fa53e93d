import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Cluster, type PodItem } from "./lib/cluster.ts";
import { eventually, Machine, root } from "./lib/machine.ts";
import { cannotRun } from "./lib/remora.ts";

const config = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerLogMaxSize: 40Ki
enableSystemLogQuery: true
`;

interface Script {
  readonly name: string;
  readonly script: string;
}

function pod(name: string, containers: readonly Script[], spec: object = {}): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name },
    spec: {
      restartPolicy: "Never",
      terminationGracePeriodSeconds: 0,
      containers: containers.map(({ name: container, script }) => ({
        name: container,
        image: "busybox:1.36",
        command: ["sh", "-c", script],
      })),
      ...spec,
    },
  };
}

const lines = 4000;
/** Waits for its reader, and fills a file in a quarter of a second: what is rotated away too early is nobody's fault. */
const rotating = `sleep 3; i=0; while [ $i -lt ${lines} ]; do
  i=$((i+1)); echo $i hello world; [ $((i % 100)) = 0 ] && usleep 60000
done; exit 0`;

describe("logs as kubectl shows them", { skip: cannotRun() ?? false }, () => {
  test("of containers with all options and over rotation, and of the node", async () => {
    await using machine = await Machine.start("lg");
    await machine.loadBusybox();
    await machine.exec(["sh", "-c", "cat > /run/kubelet.yaml"], { stdin: config });
    const remora = machine.spawn([`${root}/bin/remora`, "up", "--config", "/run/kubelet.yaml"]);
    await eventually(async () => (/^Next: kubectl/m.test(remora.output()) ? true : undefined), {
      timeoutMs: 60_000,
      describe: () => remora.output(),
    });
    const cluster = new Cluster(machine);
    cluster.processes.push(remora);

    /** Output, or the error's text. */
    const kubectl = async (...argv: readonly string[]): Promise<string> => {
      const { exitCode, stderr, stdout } = await machine.kubectl(argv, { allowFailure: true });
      return exitCode === 0 ? stdout : stderr;
    };
    const podItem = async (name: string): Promise<PodItem> => cluster.get<PodItem>("pod", name);
    const phase = async (name: string, wanted: string): Promise<void> => {
      await cluster.until(`${name} is ${wanted}`, async () => {
        const { status } = await podItem(name);
        return status.phase === wanted;
      });
    };

    await cluster.create(
      pod("rotating", [{ name: "c", script: rotating }]),
      pod("two", [
        { name: "a", script: "seq 1 10" },
        { name: "b", script: "seq 1 20" },
      ]),
      pod("streams", [{ name: "c", script: "echo out1; echo err1 >&2" }]),
      pod("crashing", [{ name: "c", script: "cat /proc/sys/kernel/random/uuid; exit 1" }], {
        restartPolicy: "Always",
      }),
      pod("waiting", [], { containers: [{ name: "c", image: "registry.invalid/none:1" }] }),
    );

    await phase("rotating", "Running");
    const followed = await kubectl("logs", "-f", "rotating");
    const expected = Array.from({ length: lines }, (_, at) => `${at + 1} hello world\n`);
    assert.equal(followed, expected.join(""));
    await phase("rotating", "Succeeded");

    for (const [options, pattern] of [
      [["--tail=2"], /^3999 hello world\n4000 hello world\n$/],
      [["--tail=1", "--timestamps"], /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z 4000 hello world\n$/],
      [["--limit-bytes=1"], /^\d$/],
      [["--since=1h", "--tail=1"], /^4000 /],
      [["--since-time=2100-01-01T00:00:00Z"], /^$/],
      [["-p"], /previous terminated container "c" in pod "rotating" not found/],
    ] as const) {
      assert.match(await kubectl("logs", "rotating", ...options), pattern);
    }

    await phase("two", "Succeeded");
    assert.equal((await kubectl("logs", "two", "-c", "a")).split("\n").length, 11);
    assert.equal((await kubectl("logs", "two", "--all-containers")).split("\n").length, 31);

    await phase("streams", "Succeeded");
    // An API server gives one stream only where its gate PodLogsQuerySplitStreams is on; the node itself always.
    const refused = "/api/v1/namespaces/default/pods/streams/log?stream=Stdout";
    assert.match(await kubectl("get", "--raw", refused), /stream: Forbidden: may not be specified/);
    const log = `/api/v1/nodes/${machine.name}/proxy/containerLogs/default/streams/c`;
    for (const [query, pattern] of [
      ["stream=Stdout", /^out1\n$/],
      ["stream=Stderr", /^err1\n$/],
      ["stream=Stdout&tailLines=1", /Invalid request/],
    ] as const) {
      assert.match(await kubectl("get", "--raw", `${log}?${query}`), pattern);
    }

    await cluster.until("the image cannot be had", async () =>
      (await kubectl("logs", "waiting")).includes(
        'container "c" in pod "waiting" is waiting to start: trying and failing to pull image',
      ),
    );
    await cluster.until("both logs of what waits to be restarted are its last one's", async () => {
      const [status] = (await podItem("crashing")).status.containerStatuses ?? [];
      if ((status?.restartCount ?? 0) < 2) return false;
      const previous = await kubectl("logs", "-p", "crashing");
      return previous.length === 37 && previous === (await kubectl("logs", "crashing"));
    });

    const { metadata, status } = await podItem("two");
    const id = status.containerStatuses?.[0]?.containerID?.replace("docker://", "") ?? "";
    for (const path of [
      `/var/log/pods/default_two_${metadata.uid}/a/0.log`,
      `/var/log/containers/two_default_a-${id}.log`,
    ]) {
      assert.match((await machine.exec(["head", "-1", path])).stdout, /^\{"log":"1\\n"/);
    }

    const node = `/api/v1/nodes/${machine.name}/proxy/logs`;
    for (const [path, pattern] of [
      ["", /<a href="containers\/">containers\/<\/a>/],
      ["/containers/", new RegExp(`<a href="two_default_a-${id}.log">`)],
      [`/containers/two_default_a-${id}.log`, /^\{"log":"1\\n"/],
      ["/..%2f..%2fetc/passwd", /could not find the requested resource|not properly encoded/],
      ["/?query", /rejected our request|query cannot be empty/],
      ["/?query=nobody", /^\nlog not found for nobody\n$/],
      ["/?query=nobody&boot=1", /boot: Invalid value: 1: must be less than 1/],
    ] as const) {
      assert.match(await kubectl("get", "--raw", `${node}${path}`), pattern);
    }

    await remora.signal("TERM");
    assert.equal(await remora.exited, 0);
  });
});
