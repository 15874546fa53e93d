import type { DnsPort, DnsService, DnsSlice } from "./types.ts";

/** Clusters have a handful of each; whoever makes up others all the time must not fill the memory. */
const mostKept = 4096;

/**
 * Texts and lists that thousands of objects have in common, kept once. Each message to a thread brings copies of its own:
 * for ten thousand Services they were a third of its memory.
 */
export class SharedValues {
  readonly #texts = new Map<string, string>();
  readonly #ports = new Map<string, readonly DnsPort[]>();
  #serviceKeys = new Map<string, string>();

  service(service: DnsService): DnsService {
    const { key, name, clusterIPs, headless, externalName } = service;
    this.#serviceKeys.set(key, key);
    const namespace = kept(this.#texts, service.namespace, service.namespace);
    const proxyName = kept(this.#texts, service.proxyName, service.proxyName);
    const ports = this.#list(service.ports);
    return { key, namespace, name, clusterIPs, headless, externalName, ports, proxyName };
  }

  slice({ key, service, ports, endpoints }: DnsSlice): DnsSlice {
    const owner = service === undefined ? undefined : (this.#serviceKeys.get(service) ?? service);
    return { key, service: owner, ports: this.#list(ports), endpoints };
  }

  /** No slice follows that belongs to a Service from before. */
  forgetServices(): void {
    this.#serviceKeys = new Map();
  }

  #list(ports: readonly DnsPort[]): readonly DnsPort[] {
    const text = ports.map(({ name, protocol, port }) => `${name} ${protocol} ${port}`).join();
    return kept(this.#ports, text, ports);
  }
}

function kept<T>(values: Map<string, T>, key: string, value: T): T {
  const known = values.get(key);
  if (known !== undefined) return known;
  if (values.size >= mostKept) values.clear();
  values.set(key, value);
  return value;
}
