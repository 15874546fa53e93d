// The pod half of the agent in a process of its own, on the real engine, so that it can be killed: crash.test.ts starts it.
// Each line on its standard input names a step, at whose Nth time from then on it kills itself: `mountVolume 2`.
import { createInterface } from "node:readline";

import { createHttpClient } from "../../../src/api/http-client.ts";
import type { Kubeconfig } from "../../../src/api/kubeconfig-types.ts";
import { createPods } from "../../../src/kubelet/pods/pods.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import type { Logger } from "../../../src/lib/log.ts";
import { createDockerRuntime } from "../../../src/runtime/docker/runtime.ts";
import { agentConfig, nodeName } from "../../component/kubelet-pods/fixture.ts";
import { fakeNetwork } from "../../fakes/fake-network.ts";

interface Order {
  readonly kubeconfig: Kubeconfig;
  readonly rootDir: string;
  readonly scope: string;
  readonly socketPath: string;
}

const order = JSON.parse(process.argv[2] ?? "") as Order;
const { kubeconfig, rootDir, scope, socketPath } = order;
const config = agentConfig(rootDir);
const say = (text: string): void => void process.stdout.write(`${text}\n`);
const logger: Logger = {
  log: (level, message, fields) => {
    if (level !== "debug") say(JSON.stringify({ level, message, ...fields }));
  },
  child: () => logger,
};
const client = createHttpClient({ kubeconfig, userAgent: "test", clock: systemClock, logger });
const runtime = createDockerRuntime({
  socketPath,
  nodeName,
  scope,
  podLogsDir: config.podLogsDir,
  containerLogsDir: config.containerLogsDir,
  clock: systemClock,
  logger,
  random: () => 0.5,
});

let armed: { readonly step: string; left: number } | undefined;
const stop = new AbortController();
const node = {
  apiVersion: "v1",
  kind: "Node",
  metadata: { name: nodeName, uid: "n", resourceVersion: "1", labels: {} },
  status: { allocatable: { cpu: "4", memory: "8Gi", pods: "110" }, capacity: { cpu: "4" } },
};

const pods = createPods({
  config,
  client,
  runtime,
  images: runtime,
  network: fakeNetwork(),
  node: { node: () => node, hostIPs: () => ["192.0.2.10"], subscribe: () => () => undefined },
  events: { event: (_, type, reason, message) => say(`${type} ${reason} ${message}`) },
  clock: systemClock,
  logger,
  random: () => 0.5,
  step: (name) => {
    if (name === armed?.step && (armed.left -= 1) === 0) process.kill(process.pid, "SIGKILL");
    say(`step ${name}`);
  },
  cgroups: {
    ensure: async () => undefined,
    adjust: async () => undefined,
    memoryUsage: async () => undefined,
    remove: async () => undefined,
  },
});

const input = createInterface({ input: process.stdin });
input.on("line", (line) => {
  const [step = "", nth = "1"] = line.split(" ");
  armed = { step, left: Number(nth) };
  say("armed");
});
input.on("close", () => stop.abort());
await pods.run(stop.signal);
await client.close();
