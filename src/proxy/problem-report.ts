import type { EventRecorder } from "../api/event-types.ts";
import type { Logger } from "../lib/log.ts";
import type { ServiceView } from "./parse.ts";

/** Says once per change which parts of a Service are not in the rules: in the log and as an event on the Service. */
export class ProblemReport {
  readonly #nodeName: string;
  readonly #logger: Logger;
  readonly #events: EventRecorder;
  readonly #reported = new Map<string, string>();

  constructor(options: {
    readonly nodeName: string;
    readonly logger: Logger;
    readonly events: EventRecorder;
  }) {
    this.#nodeName = options.nodeName;
    this.#logger = options.logger;
    this.#events = options.events;
  }

  /** @param service Undefined when it is gone. */
  report(key: string, service: ServiceView | undefined): void {
    const text = (service?.problems ?? []).join(", ");
    if ((this.#reported.get(key) ?? "") === text) return;
    if (service === undefined || text === "") {
      this.#reported.delete(key);
      return;
    }
    this.#reported.set(key, text);
    this.#logger.log("warn", "parts of a Service are not served", { service: key, fields: text });
    const { namespace, name, uid } = service;
    this.#events.event(
      { kind: "Service", apiVersion: "v1", namespace, name, uid },
      "Warning",
      "ServiceNotFullyServed",
      `node ${this.#nodeName} does not serve ${text}`,
    );
  }
}
