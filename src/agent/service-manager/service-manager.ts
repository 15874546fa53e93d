import type { Node } from "../../api/types.gen.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { Runner } from "../supervise.ts";
import type { ServiceEnvironment } from "./environment.ts";
import type { HeldSockets } from "./held-sockets.ts";
import { LoopWatch, type Turn } from "./loop-watch.ts";
import { nodeWords } from "./node-words.ts";
import type { Notify } from "./notifier.ts";

/** What must be there before we say that we are: the node was Ready in the API, and the kernel has all rules. */
export type ReadyPart = "node" | "rules";

export interface ServiceManagerOptions {
  readonly environment: ServiceEnvironment;
  readonly notify: Notify;
  readonly sockets: HeldSockets;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What the Node object says of itself, as the agent follows it. */
export interface NodeSource {
  node(): Pick<Node, "metadata" | "status"> | undefined;
  subscribe(listener: () => void): () => void;
}

/** How much longer a start may take from each time that we say what it waits for. */
const extensionMs = 60_000;
/** How often a wait is told of. */
const waitingMs = 10_000;
/**
 * Once the engine answers, a cluster that does not must not hold up the boot of the machine, or the upgrade of its
 * packages: everything that can be done without it is done, and `systemctl status` says what is missing.
 */
const patienceMs = 60_000;

const engineMs = 1000;

const missing: Readonly<Record<ReadyPart, string>> = {
  node: "the node to be Ready",
  rules: "the rules of Services",
};

/**
 * What the agent tells the service manager, and gets from it. Without one all of it does nothing, and everything is as it
 * is when somebody starts the agent in a terminal.
 */
export class ServiceManager {
  readonly #options: ServiceManagerOptions;
  readonly #watch: LoopWatch | undefined;
  readonly #missing = new Set<ReadyPart>(["node", "rules"]);
  #readyTold = false;
  #startedAt: number | undefined;
  #extendedAt = -Infinity;
  #status = "";
  #socketsTold = false;
  #source: NodeSource | undefined;

  constructor(options: ServiceManagerOptions) {
    this.#options = options;
    const { watchdogMs } = options.environment;
    if (!this.isManaged || watchdogMs === undefined) return;
    const { clock, logger } = options;
    this.#watch = new LoopWatch({
      watchdogMs,
      feed: () => this.#tell(["WATCHDOG=1"]),
      clock,
      logger,
    });
  }

  /** Whether somebody listens. */
  get isManaged(): boolean {
    return this.#options.environment.notifySocket !== undefined;
  }

  get sockets(): HeldSockets {
    return this.#options.sockets;
  }

  /** The start goes on, and waits for something: to be called at each turn of the loop that waits. */
  waiting(text: string): void {
    if (this.#readyTold) return;
    const now = this.#options.clock.monotonic();
    const lines = this.#statusLines(`waiting for ${text}`);
    if (now - this.#extendedAt >= waitingMs) {
      this.#extendedAt = now;
      lines.push(`EXTEND_TIMEOUT_USEC=${(extensionMs + waitingMs) * 1000}`);
    }
    if (lines.length > 0) this.#tell(lines);
  }

  /** Says what the start waits for until `work` has ended, however it ends. */
  async during<T>(text: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    if (!this.isManaged) return work();
    const done = new AbortController();
    const stop = AbortSignal.any([signal, done.signal]);
    const telling = this.#everyWait(stop, () => this.waiting(text));
    try {
      return await work();
    } finally {
      done.abort();
      await telling;
    }
  }

  /** What to do while no engine answers: somebody may be starting or upgrading it. Undefined: nobody waits for us. */
  engineAway(signal: AbortSignal): ((error: Error) => Promise<void>) | undefined {
    if (!this.isManaged) return undefined;
    let told = false;
    return async (error) => {
      this.waiting(`the container engine: ${error.message}`);
      if (!told)
        this.#options.logger.log("warn", "waiting for the container engine", {
          error: error.message,
        });
      told = true;
      await this.#options.clock.sleep(engineMs, signal);
    };
  }

  /** The engine answers and the parts of the agent begin: from now on patience has an end. */
  begin(node: NodeSource): void {
    this.#source = node;
    this.#startedAt ??= this.#options.clock.monotonic();
    this.#tellStart();
  }

  /** A part of readiness is reached. */
  reached(part: ReadyPart): void {
    this.#missing.delete(part);
    if (this.#readyTold) return;
    if (this.#missing.size === 0) this.#tellReady();
    else this.#tellStart();
  }

  /** @param limitMs How long a turn of the loop may take. */
  loop(name: string, limitMs: number): Turn {
    return this.#watch?.loop(name, limitMs) ?? (() => undefined);
  }

  stopping(): void {
    this.#tell(["STOPPING=1", ...this.#statusLines("stopping; pods keep running")]);
  }

  /** Does what is due from time to time; a part of the agent that does nothing without a service manager. */
  get runner(): Runner {
    return {
      name: "service manager",
      run: async (signal) => {
        const unsubscribe = this.#source?.subscribe(() => this.#tellNode());
        try {
          await this.#everyWait(signal, () => this.#lookAround());
        } finally {
          unsubscribe?.();
        }
      },
    };
  }

  async #everyWait(signal: AbortSignal, look: () => void): Promise<void> {
    const waitMs = Math.min(waitingMs, this.#watch?.waitMs ?? waitingMs);
    while (!signal.aborted) {
      if (this.isManaged) look();
      await this.#options.clock.sleep(waitMs, signal).catch(() => undefined);
    }
  }

  #lookAround(): void {
    this.#watch?.keepWaiting();
    const { clock, logger } = this.#options;
    if (this.#startedAt === undefined) return;
    if (clock.monotonic() - this.#startedAt < patienceMs) {
      if (!this.#readyTold) this.#tellStart();
      return;
    }
    this.#tellSockets();
    if (this.#readyTold) return;
    logger.log(
      "warn",
      "the service manager is told that we are ready, although something is missing",
      {
        missing: [...this.#missing].map((part) => missing[part]).join(", "),
      },
    );
    this.#tellReady();
  }

  #tell(lines: readonly string[]): void {
    if (this.isManaged) this.#options.notify(lines);
  }

  #tellSockets(): void {
    const { logger, sockets } = this.#options;
    if (this.#socketsTold) return;
    this.#socketsTold = true;
    const { missed, unused } = sockets;
    if (unused.length === 0 && missed.length === 0) return;
    // Where others answer the cluster's names, nobody asks at that address here.
    const harmless = missed.length === 0 && unused.every((socket) => socket.includes(":53/"));
    logger.log(
      harmless ? "info" : "warn",
      "the sockets that systemd holds are not those that are used here: change the socket unit with systemctl edit, so that a restart loses nothing",
      { unused: unused.join(" "), missing: missed.join(" ") },
    );
  }

  #tellStart(): void {
    this.waiting([...this.#missing].map((part) => missing[part]).join(" and "));
  }

  #tellReady(): void {
    this.#readyTold = true;
    this.#tell(["READY=1", ...this.#statusLines(this.#nodeStatus())]);
  }

  #tellNode(): void {
    if (!this.#readyTold || !this.isManaged) return;
    const lines = this.#statusLines(this.#nodeStatus());
    if (lines.length > 0) this.#tell(lines);
  }

  #nodeStatus(): string {
    const words = nodeWords(this.#source?.node());
    const wanting = this.#missing.has("rules") ? `; waiting for ${missing.rules}` : "";
    return `${words}${wanting}`;
  }

  /** Nothing when that was said last. */
  #statusLines(text: string): string[] {
    if (text === this.#status) return [];
    this.#status = text;
    return [`STATUS=${text}`];
  }
}
