import { createSocket, type RemoteInfo, type Socket as DatagramSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";

/** What goes back for one message, byte for byte; undefined = nothing, by TCP then the connection ends. */
export type RawScript = (message: Buffer, transport: "udp" | "tcp") => Said | Promise<Said>;

type Said = Buffer | readonly Buffer[] | undefined;

/** A server on loopback that speaks DNS as badly as it is told. */
export class RawNameServer implements AsyncDisposable {
  readonly #script: RawScript;
  readonly #udp: DatagramSocket = createSocket("udp4");
  readonly #tcp: Server | undefined;
  readonly #open = new Set<Socket>();
  /** Every message that came. */
  readonly messages: { readonly message: Buffer; readonly transport: "udp" | "tcp" }[] = [];
  port = 0;

  private constructor(script: RawScript, withTCP: boolean) {
    this.#script = script;
    if (withTCP) this.#tcp = createServer((socket) => this.#onConnection(socket));
  }

  static async start(script: RawScript, withTCP = true): Promise<RawNameServer> {
    const server = new RawNameServer(script, withTCP);
    if (server.#tcp !== undefined) {
      server.#tcp.listen(0, "127.0.0.1");
      await once(server.#tcp, "listening");
      server.port = (server.#tcp.address() as AddressInfo).port;
    }
    server.#udp.on("message", (message, from) => void server.#onDatagram(message, from));
    server.#udp.bind(server.port, "127.0.0.1");
    await once(server.#udp, "listening");
    ({ port: server.port } = server.#udp.address());
    return server;
  }

  async #onDatagram(message: Buffer, from: RemoteInfo): Promise<void> {
    for (const reply of await this.#replies(message, "udp")) {
      this.#udp.send(reply, from.port, from.address);
    }
  }

  #onConnection(socket: Socket): void {
    this.#open.add(socket);
    socket.on("error", () => undefined);
    const onData = async (chunk: Buffer): Promise<void> => {
      const replies = await this.#replies(chunk.subarray(2), "tcp");
      for (const reply of replies) {
        const length = Buffer.alloc(2);
        length.writeUInt16BE(reply.length);
        socket.write(Buffer.concat([length, reply]));
      }
      if (replies.length === 0) socket.end();
    };
    socket.on("data", (chunk: Buffer) => void onData(chunk));
  }

  async #replies(message: Buffer, transport: "udp" | "tcp"): Promise<readonly Buffer[]> {
    this.messages.push({ message: Buffer.from(message), transport });
    const said = await this.#script(message, transport);
    if (said === undefined) return [];
    return Buffer.isBuffer(said) ? [said] : said;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#open) socket.destroy();
    const closed = [once(this.#udp, "close")];
    this.#udp.close();
    if (this.#tcp !== undefined) {
      closed.push(once(this.#tcp, "close"));
      this.#tcp.close();
    }
    await Promise.all(closed);
  }
}
