import type { DnsThread, DnsThreadOptions } from "../../../src/agent/dns-thread.ts";
import type { NameServerSettings, RecordsUpdate, ToNameServer } from "../../../src/dns/types.ts";

/** A thread of the name server that only remembers what it is told. */
export class FakeThread implements DnsThread {
  readonly options: DnsThreadOptions;
  readonly updates: RecordsUpdate[] = [];
  readonly #ended = Promise.withResolvers<Error | undefined>();
  readonly ended = this.#ended.promise;
  stopped = false;

  constructor(options: DnsThreadOptions) {
    this.options = options;
  }

  get settings(): NameServerSettings {
    return this.options.settings;
  }

  send(message: ToNameServer): void {
    if (message.kind === "records") this.updates.push(message.update);
  }

  heapBytes(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  crash(): void {
    this.#ended.resolve(new Error("out of memory"));
  }

  async stop(): Promise<void> {
    this.stopped = true;
    this.#ended.resolve(undefined);
    await this.ended;
  }
}
