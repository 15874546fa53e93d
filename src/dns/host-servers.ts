import { isIP } from "node:net";

import { canonicalIP, ipFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { readIfThere } from "../lib/read-if-there.ts";
import type { UpstreamServer } from "./exchange.ts";

/** Where systemd-resolved writes the servers that it asks itself. */
export const resolvedFile = "/run/systemd/resolve/resolv.conf";
/** systemd-resolved's own listeners: behind them there is only what is in its file, and maybe us. */
const resolvedStubs: ReadonlySet<string> = new Set(["127.0.0.53", "127.0.0.54"]);
const freshMs = 1000;

/** The name servers of a resolv.conf, each once, in order. */
export function nameservers(text: string): readonly string[] {
  const found = text.split("\n").flatMap((line) => {
    const [keyword, address = ""] = line.trim().split(/\s+/);
    return keyword === "nameserver" && isIP(address.split("%")[0] ?? "") !== 0 ? [address] : [];
  });
  return [...new Set(found.map(canonical))];
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
  readonly #excluded = new Set<string>();
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

  /** Asks a server no more: what it is asked comes back to us. Until resolv.conf names others. */
  exclude(address: string): void {
    this.#excluded.add(address);
    this.#servers = this.#servers.filter((server) => server.address !== address);
  }

  async #refresh(): Promise<readonly UpstreamServer[]> {
    const { clock, logger, onChange, ownIPs } = this.#options;
    try {
      const listed = await this.#listed();
      const news = listed.join(" ");
      if (news !== this.#said) {
        this.#said = news;
        this.#excluded.clear();
        this.#servers = listed
          .filter((address) => !ownIPs.includes(address))
          .map((address) => ({ address, port: 53 }));
        this.#tell(listed);
        onChange?.(this.#servers);
      }
    } catch (error) {
      logger.log("warn", "the host's name servers cannot be read", { error: errorMessage(error) });
    }
    this.#readAt = clock.monotonic();
    return this.#servers;
  }

  async #listed(): Promise<readonly string[]> {
    const { read = readIfThere, resolvConf } = this.#options;
    if (resolvConf === "") return [];
    const text = (await read(resolvConf)) ?? "";
    if (!pointsToResolved(text)) return nameservers(text);
    const behind = nameservers((await read(resolvedFile)) ?? "").filter(
      (it) => !resolvedStubs.has(it),
    );
    return behind.length > 0 ? behind : nameservers(text);
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
