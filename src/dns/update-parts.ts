import type { DnsService, DnsSlice, RecordsUpdate } from "./types.ts";

/** Puts a full update together that came in parts: half of it would deny what is in the other half. */
export class UpdateParts {
  #services: DnsService[] = [];
  #slices: DnsSlice[] = [];

  /** @param more Another part follows. @returns what can be applied. */
  join(update: RecordsUpdate, more: boolean): RecordsUpdate | undefined {
    if (!more && this.#services.length === 0 && this.#slices.length === 0) return update;
    for (const service of update.services) this.#services.push(service);
    for (const slice of update.slices) this.#slices.push(slice);
    if (more) return undefined;
    const whole = { ...update, services: this.#services, slices: this.#slices };
    this.#services = [];
    this.#slices = [];
    return whole;
  }
}
