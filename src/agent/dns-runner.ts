import type { EventRecorder } from "../api/event-types.ts";
import type { Change, Informer } from "../api/informer-types.ts";
import type { AgentConfig } from "../config/types.ts";
import { decideDns } from "../dns/decide.ts";
import type { NamespaceNames } from "../dns/namespace-names.ts";
import type { DnsService, DnsSlice, NameServerSettings, RecordsUpdate } from "../dns/types.ts";
import { jitteredBackoffMs } from "../lib/backoff.ts";
import { canonicalIP } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage, isAbort } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { LocalAddresses } from "../network/types.ts";
import { Wake } from "../proxy/wake.ts";
import type { DnsLife } from "./dns-life.ts";
import type { DnsThread, DnsThreadOptions } from "./dns-thread.ts";
import type { Runner } from "./supervise.ts";

export interface DnsRunnerOptions {
  readonly config: Pick<
    AgentConfig,
    | "nodeName"
    | "dns"
    | "clusterDNS"
    | "clusterDomain"
    | "clusterCIDRs"
    | "serviceCIDRs"
    | "podCIDRs"
    | "resolvConf"
  >;
  readonly services: Informer<DnsService>;
  readonly slices: Informer<DnsSlice>;
  readonly namespaces: (onChange: () => void) => Pick<NamespaceNames, "names" | "run">;
  readonly network: LocalAddresses;
  readonly startThread: (options: DnsThreadOptions) => DnsThread | Promise<DnsThread>;
  /** Where the thread lives before and after this runner; without it the thread ends with the runner. */
  readonly life?: Pick<DnsLife, "remembered" | "remember" | "dropEarly" | "forget">;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
}

const restart = { baseMs: 200, maxMs: 30_000 };
/** A thread that lived this long was healthy: the next crash is a first one, and it is started again at once. */
const healthyMs = 60_000;
/** Objects that the thread is told in one turn: copying ten thousand would stop everything else for a while. */
const objectsInPart = 500;

/** Answers the cluster's DNS on this node, while the cluster says that nodes do (or the agent was told to). */
export function dnsRunner(options: DnsRunnerOptions): Runner {
  return { name: "dns", run: (signal) => new Dns(options).run(signal) };
}

/** What changed since the thread was last told. */
interface Pending {
  readonly services: Set<string>;
  readonly slices: Set<string>;
  namespaces: boolean;
}

interface RunningThread {
  readonly thread: DnsThread;
  readonly startedAt: number;
  /** Whether it has had everything once. */
  told: boolean;
}

class Dns {
  readonly #options: DnsRunnerOptions;
  readonly #logger: Logger;
  readonly #addresses: readonly string[];
  readonly #wake = new Wake();
  readonly #pending: Pending = { services: new Set(), slices: new Set(), namespaces: false };
  #namespaces: Pick<NamespaceNames, "names" | "run"> | undefined;
  #running: RunningThread | undefined;
  #serving: readonly string[] = [];
  /** Keys of the Services that have the addresses of the cluster's DNS. */
  #owners: ReadonlySet<string> = new Set();
  /** Something has changed that decides who answers. */
  #undecided = true;
  #refused = "";
  #failures = 0;

  constructor(options: DnsRunnerOptions) {
    this.#options = options;
    this.#logger = options.logger;
    this.#addresses = options.config.clusterDNS.map((text) => canonicalIP(text));
  }

  async run(signal: AbortSignal): Promise<void> {
    const { services, slices, namespaces, config, life } = this.#options;
    const wake = (): void => this.#wake.set();
    const unsubscribe = [
      services.subscribe((change) => {
        this.#note(change, this.#pending.services, (service) =>
          service.clusterIPs.some((ip) => this.#addresses.includes(ip)),
        );
      }),
      slices.subscribe((change) => {
        this.#note(change, this.#pending.slices, ({ service = "" }) => this.#owners.has(service));
      }),
    ];
    const decideAgain = (): void => {
      this.#undecided = true;
      wake();
    };
    for (const informer of [services, slices]) {
      informer.whenSynced(signal).then(decideAgain, () => undefined);
    }
    const stop = new AbortController();
    const all = AbortSignal.any([signal, stop.signal]);
    let following: Promise<void> | undefined;
    try {
      wake();
      while (!signal.aborted) {
        await this.#wake.wait(signal);
        await this.#decide(signal);
        if (signal.aborted) break;
        if (this.#serving.length > 0 && this.#namespaces === undefined) {
          this.#namespaces = namespaces(() => {
            this.#pending.namespaces = true;
            wake();
          });
          following = this.#namespaces.run(all).catch((error: unknown) => {
            if (!isAbort(error)) {
              this.#logger.log("error", "namespaces are not followed any more", {
                error: errorMessage(error),
              });
            }
          });
        }
        await this.#tell(signal);
        // In `off` nothing can change any more.
        if (config.dns === "off") {
          await life?.forget();
          break;
        }
      }
      if (!signal.aborted)
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
    } catch (error) {
      if (!signal.aborted || !isAbort(error)) throw error;
    } finally {
      for (const end of unsubscribe) end();
      stop.abort();
      // Whoever asks is answered until all else has ended.
      const thread = this.#options.life === undefined ? this.#running?.thread : undefined;
      await Promise.all([following, thread?.stop()]);
    }
  }

  /** @param decides Whether an object has a part in who answers: a large cluster's Services are not all asked each time. */
  #note<T>(change: Change<T>, dirty: Set<string>, decides: (object: T) => boolean): void {
    // Most changes of a slice or a Service say nothing new about names.
    if (change.kind === "updated") {
      if (JSON.stringify(change.object) === JSON.stringify(change.previous)) return;
    }
    if (change.kind !== "deleted" && decides(change.object)) this.#undecided = true;
    if (change.kind !== "added" && decides(change.previous)) this.#undecided = true;
    if (this.#running?.told === true) dirty.add(change.key);
    this.#wake.set();
  }

  async #decide(signal: AbortSignal): Promise<void> {
    const { config, services, slices, life } = this.#options;
    // What the cluster wants is not known before; `local` needs nobody's word.
    const { dns: mode = "auto" } = config;
    if (!services.synced && mode === "auto") {
      if (this.#serving.length === 0) await this.#goOn(signal);
      return;
    }
    if (!this.#undecided) {
      if (this.#serving.length > 0 && this.#running === undefined) await this.#startThread(signal);
      return;
    }
    this.#undecided = false;
    const { serve, refusals, owners } = decideDns(
      mode,
      this.#addresses,
      services.values(),
      (service) =>
        [...slices.values()].some((it) => it.service === service && it.endpoints.length > 0),
    );
    this.#owners = new Set(owners);
    this.#tellRefusals(refusals.map(({ address, service }) => `${address} (Service ${service})`));
    if (serve.join() !== this.#serving.join()) {
      await this.#stopThread();
      if (this.#serving.length > 0 && serve.length === 0) {
        this.#logger.log("info", "cluster DNS is answered by others", {});
      }
      this.#serving = serve;
      await this.#place(signal);
    }
    if (serve.length === 0) await life?.dropEarly();
    else if (this.#running === undefined) await this.#startThread(signal);
    if (services.synced) await life?.remember(serve.length === 0 ? undefined : this.#settings());
  }

  /** What was decided before is as good as anything while the API server cannot be asked. */
  async #goOn(signal: AbortSignal): Promise<void> {
    const remembered = this.#options.life?.remembered ?? [];
    const ours = remembered.every((address) => this.#addresses.includes(address));
    if (remembered.length === 0 || !ours) return;
    this.#serving = remembered;
    await this.#startThread(signal);
    await this.#place(signal);
  }

  /** Without the address nobody can be answered, with it nobody else is: so it comes and goes with the thread. */
  async #place(signal: AbortSignal): Promise<void> {
    const { network, clock } = this.#options;
    for (let failures = 1; ; failures += 1) {
      try {
        await network.setLocalAddresses(this.#serving, signal);
        return;
      } catch (error) {
        signal.throwIfAborted();
        this.#logger.log("error", "the address of cluster DNS could not be set, will retry", {
          error: errorMessage(error),
        });
        await clock.sleep(jitteredBackoffMs(failures, restart, this.#options.random), signal);
      }
    }
  }

  #tellRefusals(refusals: readonly string[]): void {
    const text = refusals.join(", ");
    if (text === this.#refused) return;
    this.#refused = text;
    if (text === "") return;
    const { nodeName } = this.#options.config;
    const message = `cluster DNS is not answered on the node: ${text} has endpoints of its own`;
    this.#logger.log("error", "cluster DNS is not answered here: its Service has endpoints", {
      addresses: text,
    });
    this.#options.events.event(
      { kind: "Node", apiVersion: "v1", namespace: "", name: nodeName, uid: nodeName },
      "Warning",
      "NodeDNSNotServed",
      message,
    );
  }

  #settings(): NameServerSettings {
    const { config } = this.#options;
    return {
      domain: config.clusterDomain,
      addresses: this.#serving,
      port: 53,
      ownNetworks: [...config.clusterCIDRs, ...(config.serviceCIDRs ?? []), ...config.podCIDRs],
      resolvConf: config.resolvConf,
    };
  }

  async #startThread(signal: AbortSignal): Promise<void> {
    const { clock, startThread } = this.#options;
    const addresses = this.#serving.join(" ");
    const thread = await startThread({
      settings: this.#settings(),
      logger: this.#logger,
      onListening: () => this.#logger.log("info", "cluster DNS is answered here", { addresses }),
    });
    const running = { thread, startedAt: clock.monotonic(), told: false };
    this.#running = running;
    void thread.ended.then((failure) =>
      failure === undefined ? undefined : this.#crashed(running, failure, signal),
    );
  }

  async #crashed(running: RunningThread, failure: Error, signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    const lived = clock.monotonic() - running.startedAt;
    this.#failures = lived > healthyMs ? 1 : this.#failures + 1;
    const delayMs =
      this.#failures === 1 ? 0 : jitteredBackoffMs(this.#failures - 1, restart, random);
    this.#logger.log("error", "the name server's thread ended and is started again", {
      error: failure.message,
      failures: this.#failures,
      delayMs: Math.round(delayMs),
    });
    await clock.sleep(delayMs, signal).catch(() => undefined);
    if (this.#running === running) this.#running = undefined;
    this.#wake.set();
  }

  async #stopThread(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    await running?.thread.stop();
  }

  /** Tells the thread what it does not know: everything once, then what changed. */
  async #tell(signal: AbortSignal): Promise<void> {
    const running = this.#running;
    const { services, slices } = this.#options;
    const namespaces = this.#namespaces?.names();
    if (running === undefined || !services.synced || !slices.synced || namespaces === undefined) {
      return;
    }
    if (running.told && !this.#hasPending()) return;
    const update = running.told ? this.#changes(namespaces) : undefined;
    // What changes from now on is told afterwards, also what is told a moment later anyway.
    running.told = true;
    this.#pending.services.clear();
    this.#pending.slices.clear();
    this.#pending.namespaces = false;
    if (update === undefined) await this.#tellEverything(running.thread, namespaces, signal);
    else running.thread.send({ kind: "records", update });
  }

  #hasPending(): boolean {
    const { services, slices, namespaces } = this.#pending;
    return services.size > 0 || slices.size > 0 || namespaces;
  }

  async #tellEverything(
    thread: DnsThread,
    namespaces: RecordsUpdate["namespaces"],
    signal: AbortSignal,
  ): Promise<void> {
    const { services, slices, clock } = this.#options;
    const part = (
      some: Partial<Pick<RecordsUpdate, "services" | "slices" | "namespaces">>,
    ): RecordsUpdate => ({
      full: true,
      services: [],
      slices: [],
      removedServices: [],
      removedSlices: [],
      namespaces: undefined,
      ...some,
    });
    const tellPart = async (update: RecordsUpdate): Promise<void> => {
      thread.send({ kind: "records", update, more: true });
      await clock.sleep(0, signal);
    };
    let someServices: DnsService[] = [];
    for (const service of services.values()) {
      someServices.push(service);
      if (someServices.length < objectsInPart) continue;
      await tellPart(part({ services: someServices }));
      someServices = [];
    }
    let someSlices: DnsSlice[] = [];
    for (const slice of slices.values()) {
      someSlices.push(slice);
      if (someSlices.length < objectsInPart) continue;
      await tellPart(part({ services: someServices, slices: someSlices }));
      someServices = [];
      someSlices = [];
    }
    const update = part({ services: someServices, slices: someSlices, namespaces });
    thread.send({ kind: "records", update });
  }

  #changes(namespaces: RecordsUpdate["namespaces"]): RecordsUpdate {
    const services = pick(this.#options.services, this.#pending.services);
    const slices = pick(this.#options.slices, this.#pending.slices);
    return {
      full: false,
      services: services.present,
      slices: slices.present,
      removedServices: services.absent,
      removedSlices: slices.absent,
      namespaces: this.#pending.namespaces ? namespaces : undefined,
    };
  }
}

function pick<T>(
  informer: Informer<T>,
  keys: Iterable<string>,
): { readonly present: readonly T[]; readonly absent: readonly string[] } {
  const present: T[] = [];
  const absent: string[] = [];
  for (const key of keys) {
    const object = informer.get(key);
    if (object === undefined) absent.push(key);
    else present.push(object);
  }
  return { present, absent };
}
