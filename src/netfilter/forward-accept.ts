import type { IPFamily } from "../lib/cidr.ts";
import { ExecError, SetupError, errorCode } from "../lib/errors.ts";
import { type ExecResult, execResult } from "../lib/exec.ts";
import { dropEmptyChains } from "./empty-chains.ts";
import { Iptables, type IptablesProgram, lockWait, mayHaveRules } from "./iptables.ts";
import type { Deletion } from "./monitor.ts";

/** Which traffic of one family is ours. */
export interface ForwardAccept {
  readonly family: IPFamily;
  /** Name of our chain in iptables' filter table, at most 28 characters. */
  readonly chain: string;
  /** Networks of pods: what comes from them or goes to them is accepted. */
  readonly podNetworks: readonly string[];
  /** Bit of the packet mark that Service traffic carries which needs a new source address. */
  readonly serviceMark: number;
  readonly input: InputAccept;
}

/** What this node answers its own pods, whatever others say about packets to the node. */
export interface InputAccept {
  /** Name of our chain, at most 28 characters. */
  readonly chain: string;
  /** The bridge of pods. */
  readonly device: string;
  /** The node's own pod network. */
  readonly source: string;
  /** Addresses on which the node answers DNS to its pods. */
  readonly nameServers: readonly string[];
}

const names: Readonly<Record<IPFamily, string>> = { IPv4: "iptables", IPv6: "ip6tables" };

/** One chain of ours, and the chain of the kernel that leads to it. */
interface OwnChain {
  readonly from: "FORWARD" | "INPUT";
  readonly chain: string;
  /** As `iptables-save` prints them. */
  readonly rules: readonly string[];
}

function ownChains(accept: ForwardAccept): readonly OwnChain[] {
  const mark = `0x${accept.serviceMark.toString(16)}`;
  const forward = [
    ...accept.podNetworks.flatMap((network) => [
      `-s ${network} -j ACCEPT`,
      `-d ${network} -j ACCEPT`,
    ]),
    // The first packet of a flow carries the mark; later ones are known by their translated destination.
    `-m mark --mark ${mark}/${mark} -j ACCEPT`,
    "-m conntrack --ctstate RELATED,ESTABLISHED -m conntrack --ctstate DNAT -j ACCEPT",
  ];
  return [
    { from: "FORWARD", chain: accept.chain, rules: forward },
    { from: "INPUT", chain: accept.input.chain, rules: inputRules(accept) },
  ];
}

function inputRules({ family, input }: ForwardAccept): readonly string[] {
  const { device, nameServers, source } = input;
  const full = family === "IPv4" ? 32 : 128;
  const names = nameServers.flatMap((address) =>
    (["udp", "tcp"] as const).map(
      (protocol) =>
        `-s ${source} -d ${address}/${full} -i ${device} -p ${protocol} -m ${protocol} --dport 53 -j ACCEPT`,
    ),
  );
  // Without neighbour discovery on it the bridge carries no IPv6 at all: solicitation and advertisement.
  const neighbours = [135, 136].map(
    (type) => `-i ${device} -p ipv6-icmp -m icmp6 --icmpv6-type ${type} -j ACCEPT`,
  );
  return family === "IPv4" ? names : [...neighbours, ...names];
}

/** The rules of our chains, as `iptables-restore` takes them. */
export function renderForwardChain(accept: ForwardAccept): string {
  const chains = ownChains(accept);
  return [
    "*filter",
    // Naming a chain empties it in the same atomic step that fills it.
    ...chains.map(({ chain }) => `:${chain} - [0:0]`),
    ...chains.flatMap(({ chain, rules }) => rules.map((rule) => `-A ${chain} ${rule}`)),
    "COMMIT",
    "",
  ].join("\n");
}

/** Whether a listing (`iptables-save -t filter`) has our chains as they should be, and the jumps to them in their place. */
export function forwardIsRight(listing: string, accept: ForwardAccept): boolean {
  const lines = listing.split("\n").map((line) => line.trimEnd());
  return ownChains(accept).every(({ chain, from, rules }) => {
    const have = lines.filter((line) => line.startsWith(`-A ${chain} `));
    const { right, count } = jumpPosition(listing, chain, from);
    const want = rules.map((rule) => `-A ${chain} ${rule}`);
    return right && count === 1 && have.join("\n") === want.join("\n");
  });
}

/** What a service proxy refuses in iptables (endpoints, source ranges) must not be accepted before. */
const toServiceRules = /-j KUBE-\S+$/;

/**
 * How the jump to `chain` stands in a listing of FORWARD or INPUT (`iptables -S FORWARD`): its place is behind those to a
 * service proxy's rules, and where there are none it comes first.
 */
export function jumpPosition(
  listing: string,
  chain: string,
  from: "FORWARD" | "INPUT" = "FORWARD",
): {
  /** There is one in its place. */
  readonly right: boolean;
  readonly count: number;
  /** Number of the rule that it should be put before, from 1. */
  readonly place: number;
  /** Numbers of the rules that are copies of it elsewhere. */
  readonly others: readonly number[];
} {
  const rules = listing.split("\n").filter((line) => line.startsWith(`-A ${from} `));
  const place = rules.findLastIndex((rule) => toServiceRules.test(rule.trimEnd())) + 2;
  const found = rules.flatMap((rule, index) =>
    rule.trimEnd().endsWith(`-j ${chain}`) ? [index + 1] : [],
  );
  const others = found.filter((number) => number !== place);
  return { right: found.includes(place), count: found.length, place, others };
}

/** What a kind of iptables answered to one look. */
export interface AcceptReport {
  readonly program: IptablesProgram;
  /** `absent`: the host's kernel has none of it, and so nothing to accept against. */
  readonly state: "right" | "changed" | "absent";
  /** The filter table as it was found, with our chains as they are now not yet in it when it was changed. */
  readonly listing: string;
}

/**
 * Makes the host's FORWARD and INPUT accept our traffic, before any rule or policy of others but those of a service
 * proxy. Needed because Docker sets FORWARD's policy to DROP, and ufw INPUT's; an accept in a table of our own cannot
 * override a drop in another. Also the repair: Docker puts its own jumps first whenever it starts. One listing per kind
 * of iptables when all is right.
 *
 * @param programs The host's kinds of iptables, the default first: the kernel obeys the rules of all of them. Another than
 *   the default is touched only when somebody else has rules in it.
 * @throws {ExecError}, {SetupError}, `AbortError`.
 */
export async function ensureForwardAccept(
  accept: ForwardAccept,
  programs: readonly IptablesProgram[],
  signal: AbortSignal,
): Promise<readonly AcceptReport[]> {
  const reports: AcceptReport[] = [];
  for (const [index, program] of programs.entries()) {
    const isDefault = index === 0;
    if (!isDefault && !(await mayHaveRules(program, accept.family))) continue;
    reports.push(await new Accepting(accept.family, program, signal).ensure(accept, isDefault));
  }
  return reports;
}

class Accepting {
  readonly #family: IPFamily;
  readonly #program: IptablesProgram;
  readonly #signal: AbortSignal;

  constructor(family: IPFamily, program: IptablesProgram, signal: AbortSignal) {
    this.#family = family;
    this.#program = program;
    this.#signal = signal;
  }

  #name(what: "" | "-save" | "-restore"): string {
    return `${names[this.#family]}${this.#program.suffix}${what}`;
  }

  async run(argv: readonly [string, ...string[]], stdin = ""): Promise<string> {
    const result = await execResult(argv, { stdin, signal: this.#signal });
    if (result.exitCode === 0) return result.stdout;
    if (/Permission denied|you must be root/i.test(result.stderr)) {
      throw new SetupError(
        `${argv[0]} may not change packet rules: run remora as root (CAP_NET_ADMIN in the host's network namespace)`,
      );
    }
    throw new ExecError(argv, result.exitCode, result.stderr);
  }

  /** Never rejects for what iptables says. */
  attempt(...args: readonly string[]): Promise<ExecResult> {
    return execResult([this.#name(""), ...lockWait, ...args], { signal: this.#signal });
  }

  #change(...args: readonly string[]): Promise<string> {
    return this.run([this.#name(""), ...lockWait, ...args]);
  }

  async ensure(accept: ForwardAccept, isDefault: boolean): Promise<AcceptReport> {
    const program = this.#program;
    let listing: string;
    try {
      listing = await this.run([this.#name("-save"), "-t", "filter"]);
      if (forwardIsRight(listing, accept)) return { program, state: "right", listing };
      // Nobody uses the other kind: there are no tables of it, or none with a rule.
      if (!isDefault && !/^-A |^:(FORWARD|INPUT) DROP/m.test(listing)) {
        return { program, state: "absent", listing };
      }
      await this.run(
        [this.#name("-restore"), ...lockWait, "--noflush"],
        renderForwardChain(accept),
      );
    } catch (error) {
      if (errorCode(error) === "ENOENT" || isUnsupported(error)) {
        return { program, state: "absent", listing: "" };
      }
      throw error;
    }
    for (const { chain, from } of ownChains(accept)) await this.#placeJump(from, chain);
    return { program, state: "changed", listing };
  }

  async #placeJump(from: OwnChain["from"], chain: string): Promise<void> {
    const look = async (): Promise<ReturnType<typeof jumpPosition>> =>
      jumpPosition(await this.#change("-S", from), chain, from);
    const { right, count, place } = await look();
    // The new jump first, so that there is no instant without one; then one deletion per copy elsewhere.
    if (!right) await this.#change("-I", from, String(place), "-j", chain);
    for (let copies = right ? count - 1 : count; copies > 0; copies -= 1) {
      const [copy] = (await look()).others;
      if (copy !== undefined) await this.#change("-D", from, String(copy));
    }
  }

  /** @returns Whether anything was there. */
  async remove(from: OwnChain["from"], chain: string): Promise<boolean> {
    const listing = await this.attempt("-S", from);
    for (let copies = jumpPosition(listing.stdout, chain, from).count; copies > 0; copies -= 1) {
      await this.attempt("-D", from, "-j", chain);
    }
    const own = await this.attempt("-S", chain);
    if (own.exitCode !== 0) return false;
    await this.#change("-F", chain);
    await this.#change("-X", chain);
    return true;
  }
}

/** A kernel without IPv6 (or without iptables) has nothing that could drop our packets. */
function isUnsupported(error: unknown): boolean {
  return (
    error instanceof ExecError &&
    /can't initialize|Could not fetch|not supported|Table does not exist/i.test(error.stderr)
  );
}

/** Removes our chains and every jump to them from one family, in every kind of iptables. Nothing there is success. */
export async function removeForwardAccept(
  family: IPFamily,
  chains: { readonly forward: string; readonly input: string },
  programs: readonly IptablesProgram[],
  signal: AbortSignal,
): Promise<void> {
  for (const program of programs) {
    if (!(await mayHaveRules(program, family))) continue;
    const accepting = new Accepting(family, program, signal);
    try {
      const forward = await accepting.remove("FORWARD", chains.forward);
      const input = await accepting.remove("INPUT", chains.input);
      if (!forward && !input) continue;
      await dropEmptyChains(new Iptables(family, program), "filter", true, signal);
    } catch (error) {
      if (errorCode(error) !== "ENOENT") throw error;
    }
  }
}

/**
 * Whether a deletion that the kernel reported may have taken our way out of FORWARD or INPUT, as `iptables -F` and the
 * start of Docker do. Only iptables of kind nf_tables reports.
 */
export function damagesAccept(
  deletion: Deletion | "unwatched",
  chains: readonly string[] = [defaultForwardChain, defaultInputChain],
): boolean {
  if (deletion === "unwatched") return true;
  const { family, kind, name, table } = deletion;
  if (table !== "filter" || family === "inet") return false;
  return kind === "table" || ["FORWARD", "INPUT", ...chains].includes(name);
}

/** Name of our chain behind FORWARD. */
export const defaultForwardChain = "REMORA-FORWARD";
/** Name of our chain behind INPUT. */
export const defaultInputChain = "REMORA-INPUT";
