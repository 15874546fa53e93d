import type { RealMachine } from "./machine.ts";
import { node, traffic } from "./payload.ts";

/** What became of questions of one sort. */
export interface Tally {
  readonly asked: number;
  readonly answered: number;
  /** Of DNS: datagrams that were sent again after five seconds without an answer. */
  readonly repeated: number;
  readonly slowestMs: number;
  readonly failures: readonly string[];
}

export type TrafficKind = "web" | "dns" | "node" | "connection";

/** Whom a machine asks. */
export interface Destinations {
  readonly webIP: string;
  readonly dnsIP: string;
  readonly name: string;
  /** `address:port` of a Service whose backends say what they hear. */
  readonly echo: string;
}

const unit = "test-traffic.service";
const file = "/run/test-traffic.json";

/** Questions that go on until somebody wants to know what became of them; they live in a unit of their own. */
export class Traffic {
  readonly #machine: RealMachine;

  private constructor(machine: RealMachine) {
    this.#machine = machine;
  }

  static async start(machine: RealMachine, to: Destinations): Promise<Traffic> {
    const { dnsIP, echo, name, webIP } = to;
    const client = [node, traffic, file, `http://${webIP}/`, dnsIP, name, echo];
    const options = [`--unit=${unit}`, "--quiet", "--collect", "--property=TimeoutStopSec=300"];
    await machine.exec(["systemd-run", ...options, ...client]);
    return new Traffic(machine);
  }

  /** Ends the questions, and waits for the answers that are open. */
  async end(): Promise<Readonly<Record<TrafficKind, Tally>>> {
    await this.#machine.exec(["systemctl", "stop", unit], { timeoutMs: 320_000 });
    const text = await this.#machine.sh(`cat ${file}; rm ${file}`);
    return JSON.parse(text) as Readonly<Record<TrafficKind, Tally>>;
  }
}
