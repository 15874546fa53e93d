// The load of test/bench/streams-logs.ts, run on the machine that is measured: KUBECONFIG DOCKER_SOCKET OPTIONS. Prints
// one JSON object, a LogsResult, on the last line.
import { readFile } from "node:fs/promises";
import { type IncomingMessage, request as httpRequest } from "node:http";
import { Agent, request } from "node:https";
import { setTimeout as delay } from "node:timers/promises";
import { parse } from "yaml";

import { Api } from "./pods-api.ts";

export interface LogsOptions {
  readonly lines: number;
  readonly rounds: number;
}

export interface LogsResult {
  /** Bytes of text in the log. */
  readonly bytes: number;
  /** Milliseconds for all of it, of each round. */
  readonly nodeMs: readonly number[];
  readonly apiMs: readonly number[];
  readonly dockerMs: readonly number[];
}

const namespace = "default";
const name = "bench-logs";

/** One line of each container's log, as long as a usual line of an access log. */
function pod(lines: number): object {
  const text = "GET /api/v1/namespaces/kube-system/pods 200 1532 12ms user-agent/1.0";
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace },
    spec: {
      restartPolicy: "Never",
      terminationGracePeriodSeconds: 0,
      containers: [
        {
          name: "c",
          image: "busybox:1.36",
          command: ["sh", "-c", `seq 1 ${lines} | sed 's,$, ${text},'`],
        },
      ],
    },
  };
}

interface Finished {
  readonly status?: {
    readonly phase?: string;
    readonly containerStatuses?: readonly { readonly containerID?: string }[];
  };
}

async function writeLog(api: Api, lines: number): Promise<string> {
  const path = `/api/v1/namespaces/${namespace}/pods`;
  await api.call("POST", path, pod(lines));
  for (;;) {
    const { status } = (await api.call("GET", `${path}/${name}`)) as Finished;
    const id = status?.containerStatuses?.[0]?.containerID;
    if (status?.phase === "Failed") throw new Error("the pod that writes failed");
    if (status?.phase === "Succeeded" && id !== undefined) return id.replace(/^docker:\/\//, "");
    await delay(200);
  }
}

/** Reads a response to its end. */
async function read(
  send: (onResponse: (incoming: IncomingMessage) => void) => ReturnType<typeof request>,
): Promise<Buffer[]> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer[]>();
  const outgoing = send((incoming) => {
    const chunks: Buffer[] = [];
    incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
    incoming.on("error", reject);
    incoming.on("end", () => {
      if (incoming.statusCode === 200) resolve(chunks);
      else reject(new Error(`${incoming.statusCode}: ${Buffer.concat(chunks).toString()}`));
    });
  });
  outgoing.on("error", reject);
  outgoing.end();
  return promise;
}

/** Text of Docker's multiplexed stream: frames of eight bytes and what they announce. */
function demultiplex(bytes: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at + 8 <= bytes.length;) {
    const end = at + 8 + bytes.readUInt32BE(at + 4);
    parts.push(bytes.subarray(at + 8, end));
    at = end;
  }
  return Buffer.concat(parts);
}

async function timed(work: () => Promise<Buffer[]>): Promise<{ ms: number; bytes: Buffer }> {
  const start = performance.now();
  const chunks = await work();
  return { ms: performance.now() - start, bytes: Buffer.concat(chunks) };
}

interface Credentials {
  readonly clusters: readonly { readonly cluster: { readonly server: string } }[];
  readonly users: readonly { readonly user: Readonly<Record<string, string>> }[];
}

async function measure(
  kubeconfig: string,
  socketPath: string,
  { lines, rounds }: LogsOptions,
): Promise<LogsResult> {
  const config = parse(await readFile(kubeconfig, "utf8")) as Credentials;
  const user = config.users[0]?.user ?? {};
  const agent = new Agent({
    cert: Buffer.from(user["client-certificate-data"] ?? "", "base64"),
    key: Buffer.from(user["client-key-data"] ?? "", "base64"),
    keepAlive: true,
    rejectUnauthorized: false,
  });
  const server = config.clusters[0]?.cluster.server ?? "";
  const api = await Api.fromKubeconfig(kubeconfig);
  const id = await writeLog(api, lines);
  const node = `https://127.0.0.1:10250/containerLogs/${namespace}/${name}/c`;
  const subresource = `${server}/api/v1/namespaces/${namespace}/pods/${name}/log`;
  const docker = `/containers/${id}/logs?stdout=1&stderr=1`;
  const ms = { node: [] as number[], api: [] as number[], docker: [] as number[] };
  let bytes = 0;
  for (let round = 0; round < rounds; round += 1) {
    const ours = await timed(() => read((done) => request(node, { agent }, done)));
    const theirs = await timed(() =>
      read((done) => httpRequest({ socketPath, path: docker }, done)),
    );
    const relayed = await timed(() => read((done) => request(subresource, { agent }, done)));
    const text = demultiplex(theirs.bytes);
    if (!text.equals(ours.bytes) || !text.equals(relayed.bytes)) {
      throw new Error("the logs differ from Docker's");
    }
    if (text.toString("latin1").split("\n").length !== lines + 1) {
      throw new Error("Docker did not keep all lines");
    }
    bytes = text.length;
    ms.node.push(ours.ms);
    ms.docker.push(theirs.ms);
    ms.api.push(relayed.ms);
  }
  await api.call("DELETE", `/api/v1/namespaces/${namespace}/pods/${name}`);
  agent.destroy();
  api.close();
  return { bytes, nodeMs: ms.node, apiMs: ms.api, dockerMs: ms.docker };
}

const [kubeconfig = "", socketPath = "", options = "{}"] = process.argv.slice(2);
const result = await measure(kubeconfig, socketPath, JSON.parse(options) as LogsOptions);
process.stdout.write(`${JSON.stringify(result)}\n`);
