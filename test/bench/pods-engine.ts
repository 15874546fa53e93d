// The engine without Remora, for test/bench/pods.ts: bare HTTP on its socket, no code of src.
import { Agent, request } from "node:http";

type Json = Readonly<Record<string, unknown>>;

/** A sandbox with one container, made of the same requests that a pod needs at the least. */
export interface RawPod {
  readonly sandboxID: string;
  readonly containerID: string;
}

/** Create bodies, made of what the engine says about a real pod. */
export interface RawTemplate {
  readonly sandbox: Json;
  readonly container: Json;
}

interface Inspected {
  readonly Id: string;
  readonly Config: Json & { readonly Labels: Readonly<Record<string, string>> };
  readonly HostConfig: Json;
}

function record(value: unknown): Json {
  return typeof value === "object" && value !== null ? { ...value } : {};
}

/** The same number of labels under names that nobody takes for a pod's. */
function renamed(labels: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(labels).map(([name, value]) => [`raw.${name}`, value]));
}

function createBody({ Config, HostConfig }: Inspected): Json {
  return { ...Config, Labels: renamed(Config.Labels), HostConfig };
}

/** A Docker Engine on a unix socket. */
export class RawEngine {
  readonly #socketPath: string;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 64 });
  #made = 0;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  async call(method: string, path: string, body?: Json): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const text = body === undefined ? "" : JSON.stringify(body);
    const outgoing = request(
      {
        agent: this.#agent,
        socketPath: this.#socketPath,
        method,
        path: `/v1.41${path}`,
        headers:
          body === undefined
            ? {}
            : { "content-type": "application/json", "content-length": Buffer.byteLength(text) },
      },
      (incoming) => {
        let answer = "";
        incoming.setEncoding("utf8");
        incoming.on("data", (chunk: string) => (answer += chunk));
        incoming.on("error", reject);
        incoming.on("end", () => {
          const status = incoming.statusCode ?? 500;
          if (status >= 400) reject(new Error(`${method} ${path}: ${status} ${answer}`));
          else resolve(answer === "" ? undefined : JSON.parse(answer));
        });
      },
    );
    outgoing.on("error", reject);
    outgoing.end(text);
    return promise;
  }

  /** What a running pod's sandbox and container were made of. */
  async template(podUID: string): Promise<RawTemplate> {
    const filters = encodeURIComponent(
      JSON.stringify({ label: [`io.kubernetes.pod.uid=${podUID}`] }),
    );
    const listed = (await this.call("GET", `/containers/json?filters=${filters}`)) as readonly {
      readonly Id: string;
    }[];
    const inspected = await Promise.all(
      listed.map(async ({ Id }) => (await this.call("GET", `/containers/${Id}/json`)) as Inspected),
    );
    const isSandbox = ({ Config }: Inspected): boolean =>
      Config.Labels["io.kubernetes.container.name"] === "POD";
    const sandbox = inspected.find(isSandbox);
    const container = inspected.find((entry) => !isSandbox(entry));
    if (sandbox === undefined || container === undefined) throw new Error("no pod to copy");
    return { sandbox: createBody(sandbox), container: createBody(container) };
  }

  async #create(body: Json): Promise<string> {
    this.#made += 1;
    const path = `/containers/create?name=raw-${process.pid}-${this.#made}`;
    return ((await this.call("POST", path, body)) as { Id: string }).Id;
  }

  /** Create and start of both, one after the other, as they depend on each other. */
  async start({ sandbox, container }: RawTemplate): Promise<RawPod> {
    const sandboxID = await this.#create(sandbox);
    await this.call("POST", `/containers/${sandboxID}/start`);
    const shared = `container:${sandboxID}`;
    const host = record(container["HostConfig"]);
    const joins = (mode: unknown): boolean =>
      typeof mode === "string" && mode.startsWith("container:");
    const containerID = await this.#create({
      ...container,
      // Refused beside another container's network.
      Hostname: "",
      HostConfig: {
        ...host,
        NetworkMode: shared,
        ...(joins(host["IpcMode"]) ? { IpcMode: shared } : {}),
        ...(joins(host["PidMode"]) ? { PidMode: shared } : {}),
      },
    });
    await this.call("POST", `/containers/${containerID}/start`);
    return { sandboxID, containerID };
  }

  /** docker stop of the container, then both are removed. */
  async stop({ sandboxID, containerID }: RawPod): Promise<void> {
    await this.call("POST", `/containers/${containerID}/stop?t=30`);
    await this.call("DELETE", `/containers/${containerID}?v=1`);
    await this.call("DELETE", `/containers/${sandboxID}?v=1&force=1`);
  }

  close(): void {
    this.#agent.destroy();
  }
}
