import { StringDecoder } from "node:string_decoder";

/** Cuts a byte stream into lines; a character or a line may span chunks. Empty lines are left out. */
export class LineSplitter {
  readonly #decoder = new StringDecoder("utf8");
  #rest = "";

  push(chunk: Uint8Array): string[] {
    const lines = (this.#rest + this.#decoder.write(Buffer.from(chunk))).split("\n");
    this.#rest = lines.pop() ?? "";
    return lines.map((line) => line.trim()).filter((line) => line !== "");
  }

  /** What is left when the stream has ended. */
  end(): string[] {
    const rest = (this.#rest + this.#decoder.end()).trim();
    this.#rest = "";
    return rest === "" ? [] : [rest];
  }
}
