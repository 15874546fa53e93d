import { isIP } from "node:net";

import { canonicalIP, ipFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { readIfThere } from "../lib/read-if-there.ts";
import type { UpstreamServer } from "./exchange.ts";
import type { AskingOptions } from "./upstreams.ts";

/** Where systemd-resolved writes the servers that it asks itself. */
export const resolvedFile = "/run/systemd/resolve/resolv.conf";
/** systemd-resolved's own listeners: behind them there is only what is in its file, and maybe us. */
const resolvedStubs: ReadonlySet<string> = new Set(["127.0.0.53", "127.0.0.54"]);
const freshMs = 1000;
const defaultAttempts = 2;
const leastTotalMs = 5000;
const mostTotalMs = 15_000;
/** Who asked us gets another chance after this long: somebody may have put it right. */
const excludedMs = 10 * 60_000;

/** The name servers of a resolv.conf, each once, in order. */
export function nameservers(text: string): readonly string[] {
  const found = text.split("\n").flatMap((line) => {
    const [keyword, address = ""] = line.trim().split(/\s+/);
    return keyword === "nameserver" && isIP(address.split("%")[0] ?? "") !== 0 ? [address] : [];
  });
  return [...new Set(found.map(canonical))];
}

/** What the `options` of a resolv.conf say about asking (resolv.conf(5)), within that page's bounds. */
export function askingOptions(text: string, servers: number): Partial<AskingOptions> {
  const words = text.split("\n").flatMap((line) => {
    const [keyword, ...options] = line.trim().split(/\s+/);
    return keyword === "options" ? options : [];
  });
  const number = (name: string, most: number): number | undefined => {
    const word = words.findLast((each) => each.startsWith(`${name}:`)) ?? "";
    const value = Number(word.slice(name.length + 1));
    return word !== "" && Number.isInteger(value) && value >= 1 ? Math.min(value, most) : undefined;
  };
  const timeout = number("timeout", 30);
  const attempts = number("attempts", 5);
  const all = 1000 * (timeout ?? 0) * (attempts ?? defaultAttempts) * servers;
  return {
    ...(attempts === undefined ? {} : { attempts }),
    // Who has slow servers waits for them; but whoever asks us has asked again long before a quarter of a minute is over.
    ...(timeout === undefined
      ? {}
      : { tryMs: timeout * 1000, totalMs: Math.min(Math.max(all, leastTotalMs), mostTotalMs) }),
    rotate: words.includes("rotate"),
    tcpOnly: words.includes("use-vc"),
  };
}

function canonical(address: string): string {
  // Link-local addresses name their interface behind a %.
  return ipFamily(address) === undefined ? address : canonicalIP(address);
}

/** Whether a resolv.conf only says: ask systemd-resolved. */
export function pointsToResolved(text: string): boolean {
  return nameservers(text).some((address) => resolvedStubs.has(address));
}

export interface HostServersOptions {
  /** /etc/resolv.conf, or what the agent was told; empty = nobody is asked. */
  readonly resolvConf: string;
  /** Our own addresses: to ask there would be to ask for ever. */
  readonly ownIPs: readonly string[];
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called with the servers when they are known, and each time they are others than before. */
  readonly onChange?: (servers: readonly UpstreamServer[]) => void;
  /** Reads a text file; undefined when it is not there. */
  readonly read?: (path: string) => Promise<string | undefined>;
}

/** The host's name servers, as its resolv.conf says at the moment: it is read again when it is older than a second. */
export class HostServers {
  readonly #options: HostServersOptions;
  /** Monotonic milliseconds until which an address is not asked. */
  readonly #excluded = new Map<string, number>();
  #asking: Partial<AskingOptions> = {};
  #servers: readonly UpstreamServer[] = [];
  #read: Promise<readonly UpstreamServer[]> | undefined;
  #readAt = -Infinity;
  #said: string | undefined;

  constructor(options: HostServersOptions) {
    this.#options = options;
  }

  /** Never rejects: while the file cannot be read, its last content counts. */
  current(): readonly UpstreamServer[] | Promise<readonly UpstreamServer[]> {
    if (this.#options.clock.monotonic() - this.#readAt < freshMs) return this.#servers;
    this.#read ??= this.#refresh().finally(() => (this.#read = undefined));
    return this.#read;
  }

  /** How the servers are to be asked, as far as the file says it. */
  asking(): Partial<AskingOptions> {
    return this.#asking;
  }

  /** Asks a server no more: what it is asked comes back to us. Until resolv.conf names others, or ten minutes are over. */
  exclude(address: string): void {
    this.#excluded.set(address, this.#options.clock.monotonic() + excludedMs);
    this.#servers = this.#servers.filter((server) => server.address !== address);
  }

  async #refresh(): Promise<readonly UpstreamServer[]> {
    const { clock, logger, onChange, ownIPs } = this.#options;
    try {
      const text = await this.#text();
      const listed = nameservers(text);
      const news = listed.join(" ");
      const other = news !== this.#said;
      if (other) this.#excluded.clear();
      this.#asking = askingOptions(text, listed.length);
      if (other || this.#readmits()) {
        this.#said = news;
        this.#servers = listed
          .filter((address) => !ownIPs.includes(address) && !this.#excluded.has(address))
          .map((address) => ({ address, port: 53 }));
        if (other) this.#tell(listed);
        onChange?.(this.#servers);
      }
    } catch (error) {
      logger.log("warn", "the host's name servers cannot be read", { error: errorMessage(error) });
    }
    this.#readAt = clock.monotonic();
    return this.#servers;
  }

  /** Whether somebody's time is over. */
  #readmits(): boolean {
    const now = this.#options.clock.monotonic();
    const over = [...this.#excluded].filter(([, until]) => until <= now);
    for (const [address] of over) this.#excluded.delete(address);
    return over.length > 0;
  }

  /** The file that counts, without systemd-resolved's stubs where there is something behind them. */
  async #text(): Promise<string> {
    const { read = readIfThere, resolvConf } = this.#options;
    if (resolvConf === "") return "";
    const text = (await read(resolvConf)) ?? "";
    if (!pointsToResolved(text)) return text;
    const lines = ((await read(resolvedFile)) ?? "").split("\n");
    const behind = lines.filter((line) => !pointsToResolved(line)).join("\n");
    return nameservers(behind).length > 0 ? behind : text;
  }

  #tell(listed: readonly string[]): void {
    const { logger, ownIPs, resolvConf } = this.#options;
    const own = listed.filter((address) => ownIPs.includes(address));
    if (own.length > 0) {
      logger.log("error", "the host asks this name server, which would have to ask the host", {
        resolvConf,
        notAsked: own.join(" "),
      });
    }
    logger.log("info", "questions for other names go to the host's name servers", {
      resolvConf,
      servers: listed.filter((address) => !own.includes(address)).join(" "),
    });
  }
}
