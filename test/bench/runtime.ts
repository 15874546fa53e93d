// Measures the Docker adapter on the real engine: test/bench/runtime.ts [pods]. Prints medians in milliseconds beside
// those of bare requests to the same engine in the same minute, and one JSON object on the last line.
import { request } from "node:http";

import {
  containerConfig,
  createFixture,
  type Fixture,
  sandboxConfig,
  socketPath,
  testSignal,
} from "../docker/runtime/fixture.ts";

const count = Number(process.argv[2] ?? 20);

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = sorted.length / 2;
  const low = sorted[Math.ceil(at) - 1] ?? Number.NaN;
  const high = sorted[Math.floor(at)] ?? Number.NaN;
  return Math.round(((low + high) / 2) * 10) / 10;
}

function rssMB(): number {
  return Math.round(process.memoryUsage.rss() / 1e5) / 10;
}

/** A request without the adapter. */
async function bare(method: string, path: string, body?: object): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json" };
    const outgoing = request({ socketPath, method, path, headers }, (incoming) => {
      let text = "";
      incoming.on("data", (chunk: Buffer) => (text += chunk.toString("utf8")));
      incoming.on("end", () => {
        if ((incoming.statusCode ?? 500) >= 300) reject(new Error(`${method} ${path}: ${text}`));
        else resolve(text === "" ? undefined : JSON.parse(text));
      });
    });
    outgoing.on("error", reject);
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

const times = new Map<string, number[]>();

async function timed<T>(what: string, work: () => Promise<T>): Promise<T> {
  const start = performance.now();
  const result = await work();
  const list = times.get(what) ?? [];
  list.push(performance.now() - start);
  times.set(what, list);
  return result;
}

/** The same container as a sandbox, by two bare requests: what the engine itself takes. */
async function bareSandbox(fixture: Fixture): Promise<void> {
  const template = (await bare("GET", `/containers/${await pauseID(fixture)}/json`)) as {
    Config: { Image: string };
    HostConfig: object;
  };
  const { Id } = (await timed("bare create sandbox", () =>
    bare("POST", "/containers/create", {
      Image: template.Config.Image,
      NetworkDisabled: true,
      Labels: { "remora.io/scope": fixture.scope },
      HostConfig: template.HostConfig,
    }),
  )) as { Id: string };
  await timed("bare start sandbox", () => bare("POST", `/containers/${Id}/start`));
  await bare("DELETE", `/containers/${Id}?force=1`);
}

let pause: string | undefined;

async function pauseID({ runtime }: Fixture): Promise<string> {
  pause ??= (await runtime.runPodSandbox(sandboxConfig(), testSignal())).id;
  return pause;
}

async function measure(fixture: Fixture): Promise<void> {
  const { runtime, busybox } = fixture;
  await pauseID(fixture);
  for (let pod = 0; pod < count; pod += 1) {
    const sandbox = await timed("sandbox create + start", () =>
      runtime.runPodSandbox(sandboxConfig(), testSignal()),
    );
    const config = containerConfig(busybox, "exec busybox sleep 3600");
    const { id } = await timed("container create", () =>
      runtime.createContainer(sandbox, config, testSignal()),
    );
    await timed("container start", () => runtime.startContainer(id, testSignal()));
    await bareSandbox(fixture);
  }
  const cold = fixture.restarted();
  await timed("first snapshot", () => cold.snapshot(testSignal()));
  for (let look = 0; look < 20; look += 1) {
    await timed("snapshot", () => cold.snapshot(testSignal()));
    await timed("bare list", () => bare("GET", "/containers/json?all=1"));
  }
}

const atStart = rssMB();
await using fixture = await createFixture();
const connected = rssMB();
await measure(fixture);
globalThis.gc?.();
const containers = [...(await fixture.runtime.snapshot(testSignal())).values()].reduce(
  (sum, { containers, sandboxes }) => sum + containers.length + sandboxes.length,
  0,
);
const result = {
  medianMs: Object.fromEntries([...times].map(([what, list]) => [what, median(list)])),
  n: Object.fromEntries([...times].map(([what, list]) => [what, list.length])),
  containers,
  rssMB: { modulesLoaded: atStart, connected, afterAll: rssMB() },
};
for (const [what, ms] of Object.entries(result.medianMs)) {
  process.stdout.write(`${what.padEnd(24)} ${String(ms).padStart(8)} ms  n=${result.n[what]}\n`);
}
process.stdout.write(`${JSON.stringify(result)}\n`);
