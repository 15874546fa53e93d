// `nft -f -` started by a small shell, as cheaply as a program can be started: what any writer of rules has to pay.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** Runs one program after the other from one long-lived shell. */
export class BareNft {
  readonly #shell = spawn("/bin/sh", [], { stdio: ["pipe", "pipe", "inherit"] });
  readonly #lines = createInterface({ input: this.#shell.stdout })[Symbol.asyncIterator]();

  /** Milliseconds from here to the end of `nft -f -` with this text. */
  async apply(text: string): Promise<number> {
    return this.#run(`nft -f - <<'END'\n${text}END\necho $?\n`);
  }

  /** The same with a file, for texts that no pipe holds. */
  async applyFile(file: string): Promise<number> {
    return this.#run(`nft -f ${file} </dev/null\necho $?\n`);
  }

  async #run(script: string): Promise<number> {
    const start = performance.now();
    this.#shell.stdin.write(script);
    const { value: status } = await this.#lines.next();
    const took = performance.now() - start;
    if (status !== "0") throw new Error(`nft ended with ${String(status)}`);
    return took;
  }

  async close(): Promise<void> {
    this.#shell.stdin.end();
    await once(this.#shell, "close");
  }
}
