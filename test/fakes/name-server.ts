import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";

import { type Answer, decode, encode, type Question, TRUNCATED_RESPONSE } from "dns-packet";

/** What a fake name server says to one question; undefined = it says nothing. */
export type Script = (
  question: Question,
  transport: "udp" | "tcp",
) =>
  | {
      readonly answers?: readonly Answer[];
      readonly authorities?: readonly Answer[];
      readonly rcode?: number;
      readonly truncated?: boolean;
    }
  | undefined;

/** A name server on loopback that answers as it is told and counts. */
export class FakeNameServer implements AsyncDisposable {
  readonly #script: Script;
  readonly #udp: DatagramSocket;
  readonly #tcp: Server;
  readonly #open = new Set<Socket>();
  /** `UDP A example.com` and so on, in order and in lower case; without questions for the root's name servers. */
  readonly asked: string[] = [];
  /** Names as they came. */
  readonly spellings: string[] = [];
  /** How often it was asked for the root's name servers. */
  probes = 0;
  /** Source ports and ids of the questions that came by UDP. */
  readonly sources: { readonly port: number; readonly id: number }[] = [];
  port = 0;

  private constructor(script: Script) {
    this.#script = script;
    this.#udp = createSocket("udp4");
    this.#tcp = createServer((socket) => this.#onConnection(socket));
  }

  static async start(script: Script, address = "127.0.0.1", port = 0): Promise<FakeNameServer> {
    const server = new FakeNameServer(script);
    server.#tcp.listen(port, address);
    await once(server.#tcp, "listening");
    server.port = (server.#tcp.address() as AddressInfo).port;
    server.#udp.on("message", (message, from) => {
      server.sources.push({ port: from.port, id: message.readUInt16BE(0) });
      const reply = server.#reply(message, "udp");
      if (reply !== undefined) server.#udp.send(reply, from.port, from.address);
    });
    server.#udp.bind(server.port, address);
    await once(server.#udp, "listening");
    return server;
  }

  #reply(message: Buffer, transport: "udp" | "tcp"): Buffer | undefined {
    const { id, questions = [] } = decode(message);
    const [question] = questions;
    if (question === undefined) return undefined;
    this.spellings.push(question.name);
    const name = question.name.toLowerCase();
    if (question.type === "NS" && (name === "" || name === ".")) this.probes += 1;
    else this.asked.push(`${transport.toUpperCase()} ${question.type} ${name}`);
    const said = this.#script({ ...question, name }, transport);
    if (said === undefined) return undefined;
    return encode({
      type: "response",
      ...(id === undefined ? {} : { id }),
      flags: (said.truncated === true ? TRUNCATED_RESPONSE : 0) | 0x180 | (said.rcode ?? 0),
      questions,
      answers: [...(said.answers ?? [])],
      authorities: [...(said.authorities ?? [])],
    });
  }

  #onConnection(socket: Socket): void {
    this.#open.add(socket);
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => {
      const reply = this.#reply(chunk.subarray(2), "tcp");
      if (reply === undefined) return;
      const length = Buffer.alloc(2);
      length.writeUInt16BE(reply.length);
      socket.write(Buffer.concat([length, reply]));
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#open) socket.destroy();
    const closed = [once(this.#udp, "close"), once(this.#tcp, "close")];
    this.#udp.close();
    this.#tcp.close();
    await Promise.all(closed);
  }
}

/** A port of loopback that is free for UDP and TCP at the moment. */
export async function freePort(): Promise<number> {
  await using probe = await FakeNameServer.start(() => undefined);
  return probe.port;
}
