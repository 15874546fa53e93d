/** Puts pieces of text together to the lines that were sent. */
export class Lines {
  #rest = "";

  /** The lines that are complete with `piece`. */
  push(piece: string): readonly string[] {
    const lines = (this.#rest + piece).split("\n");
    this.#rest = lines.pop() ?? "";
    return lines.filter((line) => line !== "");
  }
}

/** Milliseconds before try number `failures + 1`: half a second, doubling, ten at most; `random` is from 0 to 1. */
export function retryMs(failures: number, random: number): number {
  const full = Math.min(500 * 2 ** Math.min(failures - 1, 10), 10_000);
  return Math.round(full * (0.7 + random * 0.3));
}
