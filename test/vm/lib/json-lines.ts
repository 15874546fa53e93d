import type { Duplex } from "node:stream";

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

type Message = Readonly<Record<string, unknown>>;

/**
 * The conversation that qemu's monitor and the guest agent have in common: one JSON object per line, answers in the order
 * of the questions, and events between them.
 */
export class JsonLines {
  readonly #stream: Duplex;
  readonly #waiting: Waiting[] = [];
  readonly #onEvent: (event: Message) => void;
  #rest = "";

  constructor(stream: Duplex, onEvent: (event: Message) => void) {
    this.#stream = stream;
    this.#onEvent = onEvent;
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => this.#read(text));
    stream.on("error", (error) => this.fail(error));
    stream.on("close", () => this.fail(new Error("qemu has ended")));
  }

  /** Asks one question. @throws when the other side answers with an error or goes away. */
  async request(execute: string, args: Message = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#stream.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    });
  }

  /** Nobody will answer what is open. */
  fail(error: Error): void {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) if (line.trim() !== "") this.#take(JSON.parse(line) as Message);
  }

  #take(message: Message): void {
    if ("return" in message) this.#waiting.shift()?.resolve(message["return"]);
    else if ("error" in message) {
      this.#waiting.shift()?.reject(new Error(JSON.stringify(message["error"])));
    } else this.#onEvent(message);
  }
}
