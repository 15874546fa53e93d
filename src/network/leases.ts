import { mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

import {
  type Cidr,
  canonicalIP,
  cidrAddress,
  cidrContains,
  cidrSize,
  formatCidr,
  ipFamily,
  parseCidr,
} from "../lib/cidr.ts";
import { RemoraError, errorMessage } from "../lib/errors.ts";
import { namesIn } from "../lib/names-in.ts";
import { asRecord, asString, isRecord } from "../lib/guard.ts";
import type { Logger } from "../lib/log.ts";
import type { HostPort, PodBandwidth } from "./types.ts";

/** No address is free in the node's pod network. */
export class AddressPoolExhaustedError extends RemoraError {
  readonly code = "REMORA_POOL_EXHAUSTED";
  override readonly retryable = true;
}

/** What a lease is for. Enough to rebuild every rule about the pod without asking anybody. */
export interface LeaseHolder {
  readonly sandboxID: string;
  readonly podUID: string;
  readonly podKey: string;
  readonly hostPorts: readonly HostPort[];
  readonly bandwidth?: PodBandwidth;
}

export interface Lease extends LeaseHolder {
  /** One address per family of the node's pod networks, in their order. */
  readonly ips: readonly string[];
}

interface Pool {
  readonly cidr: Cidr;
  /** Offset in the network that was handed out last. */
  last: bigint;
}

/**
 * Addresses of pods: one file per address below `directory`, named by it, holding its holder. Files are the truth after
 * a crash; while the agent runs, memory is. One process at a time may use a directory.
 */
export class Leases {
  readonly #directory: string;
  readonly #logger: Logger;
  readonly #bySandbox = new Map<string, Lease>();
  readonly #byIP = new Map<string, string>();
  #pools: Pool[] = [];
  readonly #newest = new Map<string, { readonly ip: string; readonly mtimeMs: number }>();

  constructor(options: { readonly directory: string; readonly logger: Logger }) {
    this.#directory = options.directory;
    this.#logger = options.logger;
  }

  /** Reads the leases of earlier runs; what cannot be understood is removed with a warning. */
  async load(): Promise<void> {
    const found = new Map<string, { holder: LeaseHolder; ips: string[]; writtenMs: number }>();
    for (const name of (await namesIn(this.#directory)).toSorted()) {
      const path = join(this.#directory, name);
      const family = ipFamily(name);
      const holder = family === undefined ? undefined : await this.#read(path);
      if (family === undefined || holder === undefined) {
        // A temporary file of a crashed write, or a file that lost its content in a power cut: its pod died too.
        await rm(path, { force: true });
        continue;
      }
      const entry = found.get(holder.sandboxID) ?? { holder, ips: [], writtenMs: 0 };
      const { mtimeMs } = await stat(path);
      entry.ips.push(canonicalIP(name));
      entry.writtenMs = Math.max(entry.writtenMs, mtimeMs);
      found.set(holder.sandboxID, entry);
      if (mtimeMs >= (this.#newest.get(family)?.mtimeMs ?? 0)) {
        this.#newest.set(family, { ip: name, mtimeMs });
      }
    }
    this.#bySandbox.clear();
    this.#byIP.clear();
    const byAge = [...found.values()].toSorted((a, b) => a.writtenMs - b.writtenMs);
    for (const { holder, ips } of byAge) this.#remember({ ...holder, ips });
  }

  async #read(path: string): Promise<LeaseHolder | undefined> {
    try {
      return parseHolder(JSON.parse(await readFile(path, "utf8")));
    } catch (error) {
      this.#logger.log("warn", "pod address lease is unreadable and is dropped", {
        path,
        error: errorMessage(error),
      });
      return undefined;
    }
  }

  #remember(lease: Lease): void {
    this.#bySandbox.set(lease.sandboxID, lease);
    for (const ip of lease.ips) this.#byIP.set(ip, lease.sandboxID);
  }

  /** Sets the networks that new addresses come from. Leases outside them stay until they are released. */
  async setPools(podCIDRs: readonly string[]): Promise<void> {
    // Not before: an agent that never had a network leaves nothing behind.
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    this.#pools = podCIDRs.map((text) => {
      const cidr = parseCidr(text, "podCIDR");
      const known = this.#pools.find((pool) => formatCidr(pool.cidr) === formatCidr(cidr));
      if (known !== undefined) return known;
      const newest = this.#newest.get(cidr.family)?.ip;
      const last = newest !== undefined && cidrContains(cidr, newest) ? offsetOf(cidr, newest) : 1n;
      return { cidr, last };
    });
  }

  get(sandboxID: string): Lease | undefined {
    return this.#bySandbox.get(sandboxID);
  }

  /** The oldest first. */
  values(): IterableIterator<Lease> {
    return this.#bySandbox.values();
  }

  /**
   * Gives the sandbox one address of each pool, or returns what it has.
   *
   * @throws {AddressPoolExhaustedError}
   */
  async acquire(holder: LeaseHolder): Promise<Lease> {
    const held = this.#bySandbox.get(holder.sandboxID);
    if (held !== undefined && held.ips.length >= this.#pools.length) return held;
    // A crash between the files of two families leaves one address: keep it, add what is missing. Chosen and remembered
    // in one synchronous step, so that two sandboxes never get the same address.
    const ips = this.#pools.map(
      (pool) => held?.ips.find((ip) => ipFamily(ip) === pool.cidr.family) ?? this.#pick(pool),
    );
    const lease: Lease = { ...holder, ips };
    this.#remember(lease);
    try {
      await this.#write(lease);
    } catch (error) {
      await this.release(holder.sandboxID);
      throw error;
    }
    return lease;
  }

  async #write(lease: Lease): Promise<void> {
    const { ips, ...holder } = lease;
    const content = `${JSON.stringify(holder)}\n`;
    const write = async (ip: string): Promise<void> => {
      const path = join(this.#directory, ip);
      // No fsync: after a power cut the pod's network namespace is gone as well, and with it the need for the lease.
      await writeFile(`${path}.tmp`, content, { mode: 0o600 });
      await rename(`${path}.tmp`, path);
    };
    const writes = ips.map(write);
    // Nothing may still be writing when a failure makes the caller take the files away.
    await Promise.allSettled(writes);
    await Promise.all(writes);
  }

  #pick(pool: Pool): string {
    const { cidr } = pool;
    // Offset 0 is the network, 1 the bridge; the last address of an IPv4 network is its broadcast address.
    const first = 2n;
    const size = cidrSize(cidr);
    const end = cidr.family === "IPv4" ? size - 2n : size - 1n;
    const room = end - first + 1n;
    const tries =
      room < 0n ? 0n : room < BigInt(this.#byIP.size + 1) ? room : BigInt(this.#byIP.size + 1);
    let offset = pool.last;
    for (let tried = 0n; tried < tries; tried += 1n) {
      offset = offset >= end || offset < first ? first : offset + 1n;
      const ip = cidrAddress(cidr, offset);
      if (this.#byIP.has(ip)) continue;
      pool.last = offset;
      return ip;
    }
    throw new AddressPoolExhaustedError(
      `no free pod address in ${formatCidr(cidr)}: ${this.#byIP.size} are taken; delete pods or give the node a larger pod CIDR`,
    );
  }

  /** Forgets the sandbox's addresses. Unknown is success. */
  async release(sandboxID: string): Promise<void> {
    const lease = this.#bySandbox.get(sandboxID);
    if (lease === undefined) return;
    for (const ip of lease.ips) await rm(join(this.#directory, ip), { force: true });
    // Memory last: until the file is gone nobody else may get the address.
    this.#bySandbox.delete(sandboxID);
    for (const ip of lease.ips) this.#byIP.delete(ip);
  }

  /** Removes the directory with everything in it. */
  async removeAll(): Promise<void> {
    this.#bySandbox.clear();
    this.#byIP.clear();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

function offsetOf(cidr: Cidr, ip: string): bigint {
  return parseCidr(`${ip}/${cidr.family === "IPv4" ? 32 : 128}`).base - cidr.base;
}

const protocols = new Set(["TCP", "UDP", "SCTP"]);

function parseHolder(value: unknown): LeaseHolder {
  const record = asRecord(value, "$");
  const hostPorts = Array.isArray(record["hostPorts"]) ? record["hostPorts"] : [];
  const bandwidth = parseBandwidth(record["bandwidth"]);
  return {
    sandboxID: asString(record["sandboxID"], "$.sandboxID"),
    podUID: asString(record["podUID"], "$.podUID"),
    podKey: asString(record["podKey"], "$.podKey"),
    hostPorts: hostPorts.filter(isHostPort),
    ...(bandwidth === undefined ? {} : { bandwidth }),
  };
}

function parseBandwidth(value: unknown): PodBandwidth | undefined {
  if (!isRecord(value)) return undefined;
  const { egressBits, ingressBits } = value;
  return {
    ...(typeof ingressBits === "number" ? { ingressBits } : {}),
    ...(typeof egressBits === "number" ? { egressBits } : {}),
  };
}

function isHostPort(value: unknown): value is HostPort {
  return (
    isRecord(value) &&
    typeof value["protocol"] === "string" &&
    protocols.has(value["protocol"]) &&
    typeof value["hostIP"] === "string" &&
    (value["hostIP"] === "" || ipFamily(value["hostIP"]) !== undefined) &&
    Number.isInteger(value["hostPort"]) &&
    Number.isInteger(value["containerPort"])
  );
}
