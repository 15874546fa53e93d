// A command in a container by the engine alone: create, start, read to the end, inspect. No code of src.
import { Agent, request } from "node:http";
import type { Duplex } from "node:stream";

/** The engine's exec on a unix socket. */
export class EngineExec {
  readonly #socketPath: string;
  readonly #agent = new Agent({ keepAlive: true });

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  async #json(method: string, path: string, body?: object): Promise<Record<string, unknown>> {
    const { promise, resolve, reject } = Promise.withResolvers<Record<string, unknown>>();
    const text = body === undefined ? "" : JSON.stringify(body);
    const outgoing = request(
      {
        agent: this.#agent,
        socketPath: this.#socketPath,
        method,
        path: `/v1.41${path}`,
        headers: body === undefined ? {} : { "content-type": "application/json" },
      },
      (incoming) => {
        let answer = "";
        incoming.setEncoding("utf8");
        incoming.on("data", (chunk: string) => (answer += chunk));
        incoming.on("end", () => {
          if ((incoming.statusCode ?? 500) >= 300) reject(new Error(`${path}: ${answer}`));
          else resolve(JSON.parse(answer) as Record<string, unknown>);
        });
      },
    );
    outgoing.on("error", reject);
    outgoing.end(text);
    return promise;
  }

  #start(id: string): Promise<Duplex> {
    const { promise, resolve, reject } = Promise.withResolvers<Duplex>();
    const outgoing = request({
      socketPath: this.#socketPath,
      agent: false,
      method: "POST",
      path: `/v1.41/exec/${id}/start`,
      headers: { "content-type": "application/json", connection: "Upgrade", upgrade: "tcp" },
    });
    outgoing.on("error", reject);
    outgoing.on("upgrade", (_response, socket, head) => {
      if (head.length > 0) socket.unshift(head);
      resolve(socket);
    });
    outgoing.end(JSON.stringify({ Detach: false, Tty: false }));
    return promise;
  }

  /** Runs the command to its end. @returns Its exit code. */
  async run(containerID: string, command: readonly string[]): Promise<number> {
    const created = await this.#json("POST", `/containers/${containerID}/exec`, {
      Cmd: command,
      AttachStdout: true,
      AttachStderr: true,
    });
    const id = String(created["Id"]);
    const stream = await this.#start(id);
    for await (const chunk of stream) void chunk;
    const { ExitCode } = await this.#json("GET", `/exec/${id}/json`);
    return Number(ExitCode);
  }

  async containers(label: string): Promise<readonly string[]> {
    const filters = encodeURIComponent(JSON.stringify({ label: [label] }));
    const list: unknown = await this.#json("GET", `/containers/json?filters=${filters}`);
    return (list as readonly { readonly Id: string }[]).map(({ Id }) => Id);
  }

  close(): void {
    this.#agent.destroy();
  }

  async pid(containerID: string): Promise<number> {
    const { State } = await this.#json("GET", `/containers/${containerID}/json`);
    return (State as { readonly Pid: number }).Pid;
  }
}
