import { errorCode } from "../lib/errors.ts";
import { ExecError, SetupError } from "../lib/errors.ts";
import { execResult } from "../lib/exec.ts";
import type { IPFamily } from "../lib/cidr.ts";

/** Which forwarded traffic of one family is ours. */
export interface ForwardAccept {
  readonly family: IPFamily;
  /** Name of our chain in iptables' filter table, at most 28 characters. */
  readonly chain: string;
  /** Networks of pods: what comes from them or goes to them is accepted. */
  readonly podNetworks: readonly string[];
  /** Bit of the packet mark that Service traffic carries which needs a new source address. */
  readonly serviceMark: number;
}

const programs: Readonly<Record<IPFamily, string>> = { IPv4: "iptables", IPv6: "ip6tables" };
const waitSeconds = "5";

async function iptables(
  argv: readonly [string, ...string[]],
  stdin: string,
  signal: AbortSignal,
): Promise<string> {
  const result = await execResult(argv, { stdin, signal });
  if (result.exitCode === 0) return result.stdout;
  if (/Permission denied|you must be root/i.test(result.stderr)) {
    throw new SetupError(
      `${argv[0]} may not change packet rules: run remora as root (CAP_NET_ADMIN in the host's network namespace)`,
    );
  }
  throw new ExecError(argv, result.exitCode, result.stderr);
}

/** The rules of our chain, as `iptables-restore` takes them. */
export function renderForwardChain(accept: ForwardAccept): string {
  const mark = `0x${accept.serviceMark.toString(16)}`;
  const rules = [
    ...accept.podNetworks.flatMap((network) => [
      `-s ${network} -j ACCEPT`,
      `-d ${network} -j ACCEPT`,
    ]),
    // The first packet of a flow carries the mark; later ones are known by their translated destination.
    `-m mark --mark ${mark}/${mark} -j ACCEPT`,
    "-m conntrack --ctstate RELATED,ESTABLISHED -m conntrack --ctstate DNAT -j ACCEPT",
  ];
  return [
    "*filter",
    // Naming the chain empties it in the same atomic step that fills it.
    `:${accept.chain} - [0:0]`,
    ...rules.map((rule) => `-A ${accept.chain} ${rule}`),
    "COMMIT",
    "",
  ].join("\n");
}

/** Whether a listing (`iptables-save -t filter`) has our chain as it should be, and the jump to it in its place. */
export function forwardIsRight(listing: string, accept: ForwardAccept): boolean {
  const prefix = `-A ${accept.chain} `;
  const have = listing.split("\n").filter((line) => line.startsWith(prefix));
  const want = renderForwardChain(accept)
    .split("\n")
    .filter((line) => line.startsWith(prefix));
  const { right, count } = jumpPosition(listing, accept.chain);
  return right && count === 1 && have.map((line) => line.trim()).join("\n") === want.join("\n");
}

/** What a service proxy refuses in iptables (endpoints, source ranges) must not be accepted before. */
const toServiceRules = /-j KUBE-\S+$/;

/**
 * How the jump to `chain` stands in a listing of FORWARD (`iptables -S FORWARD`): its place is behind those to a service
 * proxy's rules, and where there are none it comes first.
 */
export function jumpPosition(
  listing: string,
  chain: string,
): {
  /** There is one in its place. */
  readonly right: boolean;
  readonly count: number;
  /** Number of the rule that it should be put before, from 1. */
  readonly place: number;
  /** Numbers of the rules that are copies of it elsewhere. */
  readonly others: readonly number[];
} {
  const rules = listing.split("\n").filter((line) => line.startsWith("-A FORWARD "));
  const place = rules.findLastIndex((rule) => toServiceRules.test(rule.trimEnd())) + 2;
  const found = rules.flatMap((rule, index) =>
    rule.trimEnd().endsWith(`-j ${chain}`) ? [index + 1] : [],
  );
  const others = found.filter((number) => number !== place);
  return { right: found.includes(place), count: found.length, place, others };
}

/**
 * Makes the host's FORWARD chain accept our traffic, before any rule or policy of others but those of a service proxy.
 * Needed because Docker sets the policy to DROP, and an accept in a table of our own cannot override a drop in another.
 * Also the repair: Docker puts its own jumps first whenever it starts. One listing when all is right.
 *
 * @returns `absent` when the host has no iptables for this family, and so nothing to accept against.
 * @throws {ExecError}, {SetupError}, `AbortError`.
 */
export async function ensureForwardAccept(
  accept: ForwardAccept,
  signal: AbortSignal,
): Promise<"right" | "changed" | "absent"> {
  const program = programs[accept.family];
  try {
    const saved = await iptables([`${program}-save`, "-t", "filter"], "", signal);
    if (forwardIsRight(saved, accept)) return "right";
    await iptables(
      [`${program}-restore`, "-w", waitSeconds, "--noflush"],
      renderForwardChain(accept),
      signal,
    );
  } catch (error) {
    if (errorCode(error) === "ENOENT" || isUnsupported(error)) return "absent";
    throw error;
  }
  const change = (...args: readonly string[]): Promise<string> =>
    iptables([program, "-w", waitSeconds, ...args], "", signal);
  const look = async (): Promise<ReturnType<typeof jumpPosition>> =>
    jumpPosition(await change("-S", "FORWARD"), accept.chain);
  const { right, count, place } = await look();
  // The new jump first, so that there is no instant without one; then one deletion per copy elsewhere.
  if (!right) await change("-I", "FORWARD", String(place), "-j", accept.chain);
  for (let copies = right ? count - 1 : count; copies > 0; copies -= 1) {
    const [copy] = (await look()).others;
    if (copy !== undefined) await change("-D", "FORWARD", String(copy));
  }
  return "changed";
}

/** A kernel without IPv6 (or without iptables) has nothing that could drop our packets. */
function isUnsupported(error: unknown): boolean {
  return (
    error instanceof ExecError &&
    /can't initialize|Could not fetch|not supported|Table does not exist/i.test(error.stderr)
  );
}

/** Removes our chain and every jump to it from one family. Nothing of it there is success. */
export async function removeForwardAccept(
  family: IPFamily,
  chain: string,
  signal: AbortSignal,
): Promise<void> {
  const program = programs[family];
  const run = (args: readonly string[]): ReturnType<typeof execResult> =>
    execResult([program, "-w", waitSeconds, ...args], { signal });
  try {
    const listing = await run(["-S", "FORWARD"]);
    for (let copies = jumpPosition(listing.stdout, chain).count; copies > 0; copies -= 1) {
      await run(["-D", "FORWARD", "-j", chain]);
    }
    const own = await run(["-S", chain]);
    if (own.exitCode !== 0) return;
    await iptables([program, "-w", waitSeconds, "-F", chain], "", signal);
    await iptables([program, "-w", waitSeconds, "-X", chain], "", signal);
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
}
