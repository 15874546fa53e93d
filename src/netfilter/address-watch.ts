import { networkInterfaces } from "node:os";
import { createInterface } from "node:readline";

import { jitteredBackoffMs } from "../lib/backoff.ts";
import { canonicalIP, ipFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage } from "../lib/errors.ts";
import { exec, spawnStreaming, whenClosed } from "../lib/exec.ts";
import type { Logger } from "../lib/log.ts";

/** One address of one interface, as the kernel has it. */
export interface InterfaceAddress {
  readonly interfaceName: string;
  /** Canonical. */
  readonly address: string;
  /** Made for privacy, to be given up soon (RFC 8981). */
  readonly temporary: boolean;
  /** Not to be used: not known yet to be nobody else's, found to be somebody else's, or past its preferred lifetime. */
  readonly doubtful: boolean;
}

/** Addresses in what `ip -o address show` prints. */
export function parseAddressListing(text: string): readonly InterfaceAddress[] {
  return text.split("\n").flatMap((line): InterfaceAddress[] => {
    const [, interfaceName = "", ip = "", rest = ""] =
      /^\d+:\s+(\S+)\s+inet6?\s+([0-9a-fA-F.:]+)(.*)/.exec(line) ?? [];
    if (ipFamily(ip) === undefined) return [];
    // Behind the backslash come lifetimes.
    const words = new Set((rest.split("\\")[0] ?? "").split(/\s+/));
    return [
      {
        interfaceName,
        address: canonicalIP(ip),
        temporary: words.has("temporary"),
        doubtful: ["tentative", "dadfailed", "deprecated"].some((word) => words.has(word)),
      },
    ];
  });
}

async function listAddresses(signal: AbortSignal): Promise<readonly InterfaceAddress[]> {
  return parseAddressListing(await exec(["ip", "-o", "address", "show"], { signal }));
}

function addressesInUse(): readonly InterfaceAddress[] {
  return Object.entries(networkInterfaces()).flatMap(([interfaceName, infos]) =>
    (infos ?? []).map(({ address }) => ({
      interfaceName,
      address,
      temporary: false,
      doubtful: false,
    })),
  );
}

/** Interfaces that come and go with containers. */
const containerInterface = /^(veth|rmv|docker|br-|remora|cni|cali|lxc|virbr|podman|flannel|kube-)/;

/** Whether an interface is there for containers, and not for the machine itself. */
export function isContainerInterface(name: string): boolean {
  return containerInterface.test(name);
}

/** By the default route, or by the halves of it that VPNs set over it. */
const leadsOut =
  /^(?:Deleted )?(?:unreachable )?(?:default|0\.0\.0\.0\/1|128\.0\.0\.0\/1|::\/1|8000::\/1|2000::\/3) /;

/**
 * Whether a line of `ip -o monitor link address route rule` may mean that this machine has other addresses, or leaves by
 * another one. Links and addresses come as `3: eth0@if2: <...>` and `3: eth0    inet ...`, routes without a number, rules
 * as `32765:	from ...`. Pure.
 */
export function concernsAddresses(line: string): boolean {
  const [, device, isLink] = /^(?:Deleted )?\d+:\s+([^\s:@]+)(?:@[^\s:]+)?(:?)/.exec(line) ?? [];
  if (device === undefined) return leadsOut.test(line);
  if (isLink === ":") return !isContainerInterface(device);
  // Every interface gets a link-local address of its own accord, those of pods among them.
  return !/^(?:Deleted )?\d+:\s+\S+\s+inet6 fe80:/.test(line);
}

const everything = ["ip", "-o", "monitor", "link", "address", "route", "rule"] as const;
const restart = { baseMs: 1000, maxMs: 60_000 };

export interface AddressWatchOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
  /** Lists all addresses; another one in tests. */
  readonly list?: (signal: AbortSignal) => Promise<readonly InterfaceAddress[]>;
  /** What is known when that fails at the start; another one in tests. */
  readonly fallback?: () => readonly InterfaceAddress[];
  /** Prints a line for each change; another one in tests. */
  readonly monitor?: readonly [string, ...string[]];
}

/** What somebody needs who follows the addresses of this machine. */
export interface AddressSource {
  /** Of all interfaces, sorted; empty before the first reading. */
  readonly addresses: readonly string[];
  /** Resolves when the addresses were read once, or could not be. */
  whenKnown(signal: AbortSignal): Promise<void>;
  /** @param listener Gets all addresses, sorted, at the start and after each change. Must not throw. */
  subscribe(listener: (addresses: readonly string[]) => void): () => void;
}

/**
 * Follows what the kernel says of the addresses, links and routes of this network namespace. One for all that want to
 * know: each costs a process.
 */
export class AddressWatch implements AddressSource {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #random: () => number;
  readonly #list: (signal: AbortSignal) => Promise<readonly InterfaceAddress[]>;
  readonly #fallback: () => readonly InterfaceAddress[];
  readonly #monitor: readonly [string, ...string[]];
  readonly #listeners = new Set<(addresses: readonly string[]) => void>();
  readonly #disturbed = new Set<() => void>();
  readonly #lines = new Set<(line: string | undefined) => void>();
  readonly #known = Promise.withResolvers<void>();
  #interfaces: readonly InterfaceAddress[] = [];
  #addresses: readonly string[] = [];
  #told: string | undefined;
  #changed = false;
  #reading: Promise<void> | undefined;

  constructor(options: AddressWatchOptions) {
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#random = options.random;
    this.#list = options.list ?? listAddresses;
    this.#fallback = options.fallback ?? addressesInUse;
    this.#monitor = options.monitor ?? everything;
  }

  get addresses(): readonly string[] {
    return this.#addresses;
  }

  /** As they were last, those of interfaces that are down included. */
  get interfaces(): readonly InterfaceAddress[] {
    return this.#interfaces;
  }

  async whenKnown(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, reject } = Promise.withResolvers<never>();
    const abort = (): void => {
      reject(new DOMException("The operation was aborted", "AbortError"));
    };
    signal.addEventListener("abort", abort, { once: true });
    try {
      await Promise.race([this.#known.promise, promise]);
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  subscribe(listener: (addresses: readonly string[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * @param listener Is told when addresses, links of the machine itself or the routes by which it leaves may have changed,
   *   after the addresses were read. Must not throw.
   */
  onDisturbed(listener: () => void): () => void {
    this.#disturbed.add(listener);
    return () => this.#disturbed.delete(listener);
  }

  /**
   * @param listener Gets every line of the monitor, and undefined when some may have been missed. Must not throw.
   */
  onLine(listener: (line: string | undefined) => void): () => void {
    this.#lines.add(listener);
    return () => this.#lines.delete(listener);
  }

  /** Watches until `signal` aborts; a monitor that ends is started again, and what happened meanwhile is read. */
  async run(signal: AbortSignal): Promise<void> {
    for (let ended = 1; !signal.aborted; ended += 1) {
      const startedAt = this.#clock.monotonic();
      const stderr = await this.#watchOnce(signal);
      await this.#reading;
      if (signal.aborted) return;
      if (this.#clock.monotonic() - startedAt > restart.maxMs) ended = 1;
      this.#logger.log("warn", "ip monitor ended; addresses are read and it is started again", {
        error: stderr,
      });
      try {
        await this.#clock.sleep(jitteredBackoffMs(ended, restart, this.#random), signal);
      } catch (error) {
        if (signal.aborted) return;
        throw error;
      }
    }
  }

  /** @returns The last thing the monitor said on stderr. */
  async #watchOnce(signal: AbortSignal): Promise<string> {
    const child = spawnStreaming(this.#monitor, { signal, dieWithParent: true });
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => {
      stderr = chunk.toString("utf8").trim().slice(-200);
      // It goes on after "No buffer space available", without the lines that found none.
      this.#missed(signal);
    });
    createInterface({ input: child.stdout }).on("line", (line) => {
      for (const listener of this.#lines) listener(line);
      if (concernsAddresses(line)) this.#readSoon(signal);
    });
    const closed = whenClosed(child);
    // What changes from here on has a line of its own.
    this.#missed(signal);
    await closed;
    return stderr;
  }

  /** Lines may have been missed. */
  #missed(signal: AbortSignal): void {
    for (const listener of this.#lines) listener(undefined);
    this.#readSoon(signal);
  }

  /** One reading at a time; what changes during one is read by the next. */
  #readSoon(signal: AbortSignal): void {
    this.#changed = true;
    this.#reading ??= this.#readWhileChanged(signal).finally(() => {
      this.#reading = undefined;
    });
  }

  async #readWhileChanged(signal: AbortSignal): Promise<void> {
    while (this.#changed && !signal.aborted) {
      this.#changed = false;
      try {
        this.#tell(await this.#list(signal));
      } catch (error) {
        if (signal.aborted) return;
        this.#logger.log("warn", "addresses of this machine cannot be read", {
          error: errorMessage(error),
        });
        // Better than none, though those of interfaces that are down are not among them.
        if (this.#told === undefined) this.#tell(this.#fallback());
      }
      this.#known.resolve();
      for (const listener of this.#disturbed) listener();
    }
  }

  #tell(interfaces: readonly InterfaceAddress[]): void {
    this.#interfaces = interfaces;
    const addresses = [...new Set(interfaces.map(({ address }) => address))].toSorted();
    const text = addresses.join();
    if (text === this.#told) return;
    this.#told = text;
    this.#addresses = addresses;
    for (const listener of this.#listeners) listener(addresses);
  }
}
