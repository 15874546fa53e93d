import type { TlsSource } from "../../kubelet/server/tls-source.ts";

/** The pair that a server shows now, and who wants to hear of the next one. */
export class HeldPair implements TlsSource {
  readonly #listeners = new Set<() => void>();
  #pair: { readonly cert: string; readonly key: string };

  constructor(pair: { readonly cert: string; readonly key: string }) {
    this.#pair = pair;
  }

  current(): { readonly cert: string; readonly key: string } {
    return this.#pair;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** @returns Whether that is another pair than before. */
  set(pair: { readonly cert: string; readonly key: string }): boolean {
    if (pair.cert === this.#pair.cert && pair.key === this.#pair.key) return false;
    this.#pair = pair;
    for (const listener of this.#listeners) listener();
    return true;
  }
}
