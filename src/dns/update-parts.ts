import { SharedValues } from "./shared-values.ts";
import type { DnsService, DnsSlice, RecordsUpdate } from "./types.ts";

/** Puts a full update together that came in parts: half of it would deny what is in the other half. */
export class UpdateParts {
  readonly #shared = new SharedValues();
  #services: DnsService[] = [];
  #slices: DnsSlice[] = [];

  /** @param more Another part follows. @returns what can be applied. */
  join(update: RecordsUpdate, more: boolean): RecordsUpdate | undefined {
    for (const service of update.services) this.#services.push(this.#shared.service(service));
    for (const slice of update.slices) this.#slices.push(this.#shared.slice(slice));
    if (more) return undefined;
    const whole = { ...update, services: this.#services, slices: this.#slices };
    this.#services = [];
    this.#slices = [];
    this.#shared.forgetServices();
    return whole;
  }
}
