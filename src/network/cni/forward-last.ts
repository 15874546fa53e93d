import { ExecError, errorCode } from "../../lib/errors.ts";
import { execResult } from "../../lib/exec.ts";
import { type IPFamily, ipFamily } from "../../lib/cidr.ts";

/** Which forwarded traffic of one family is accepted when nobody else has an opinion. */
export interface ForwardLast {
  readonly family: IPFamily;
  /** Name of our chain in iptables' filter table, at most 28 characters. */
  readonly chain: string;
  /** Networks of pods. */
  readonly podNetworks: readonly string[];
  /** Bit of the packet mark that Service traffic carries which needs a new source address. */
  readonly serviceMark: number;
}

const programs: Readonly<Record<IPFamily, string>> = { IPv4: "iptables", IPv6: "ip6tables" };
const waitSeconds = "5";

function rulesOf({ chain, family, podNetworks, serviceMark }: ForwardLast): readonly string[] {
  const mark = `0x${serviceMark.toString(16)}`;
  const networks = podNetworks.filter((cidr) => ipFamily(cidr.split("/")[0] ?? "") === family);
  return [
    ...networks.flatMap((network) => [`-s ${network} -j ACCEPT`, `-d ${network} -j ACCEPT`]),
    `-m mark --mark ${mark}/${mark} -j ACCEPT`,
    "-m conntrack --ctstate RELATED,ESTABLISHED -m conntrack --ctstate DNAT -j ACCEPT",
  ].map((rule) => `-A ${chain} ${rule}`);
}

/** The rules of our chain, as `iptables-restore` takes them. Naming the chain empties it in the same atomic step. */
function render(accept: ForwardLast): string {
  return ["*filter", `:${accept.chain} - [0:0]`, ...rulesOf(accept), "COMMIT", ""].join("\n");
}

function jumpsIn(listing: string, chain: string): number {
  return listing.split("\n").filter((line) => line.trimEnd() === `-A FORWARD -j ${chain}`).length;
}

/** Whether a listing (`iptables-save -t filter`) has our chain as it should be, and one jump to it anywhere. */
export function isAccepting(listing: string, accept: ForwardLast): boolean {
  const own = listing
    .split("\n")
    .map((line) => line.trimEnd())
    .filter((line) => line.startsWith(`-A ${accept.chain} `));
  const right = own.join("\n") === rulesOf(accept).join("\n");
  return right && jumpsIn(listing, accept.chain) === 1;
}

async function run(
  argv: readonly [string, ...string[]],
  stdin: string,
  signal: AbortSignal,
): Promise<string> {
  const result = await execResult(argv, { stdin, signal });
  if (result.exitCode !== 0) throw new ExecError(argv, result.exitCode, result.stderr);
  return result.stdout;
}

/** No iptables here, or none for this family: nothing that could drop packets either. */
function isAbsent(error: unknown): boolean {
  if (errorCode(error) === "ENOENT") return true;
  return (
    error instanceof ExecError &&
    /can't initialize|Could not fetch|not supported|Table does not exist/i.test(error.stderr)
  );
}

/**
 * Makes the host's FORWARD chain accept the pods' traffic when nobody before has said anything about it: Docker sets its
 * policy to DROP, and plug-ins such as `bridge` do nothing about that. Last, because the rules of those plug-ins that do
 * network policies come before, and must have their say.
 *
 * @returns `absent` when the host has no iptables for this family.
 * @throws {ExecError}, `AbortError`.
 */
export async function ensureForwardLast(
  accept: ForwardLast,
  signal: AbortSignal,
): Promise<"right" | "changed" | "absent"> {
  const program = programs[accept.family];
  const { chain } = accept;
  try {
    const listing = await run([`${program}-save`, "-t", "filter"], "", signal);
    if (isAccepting(listing, accept)) return "right";
    const restore = [`${program}-restore`, "-w", waitSeconds, "--noflush"] as const;
    await run(restore, render(accept), signal);
    // The new jump first, so that there is no instant without one. -D takes the first of several.
    await run([program, "-w", waitSeconds, "-A", "FORWARD", "-j", chain], "", signal);
    for (let copies = jumpsIn(listing, chain); copies > 0; copies -= 1) {
      await run([program, "-w", waitSeconds, "-D", "FORWARD", "-j", chain], "", signal);
    }
    return "changed";
  } catch (error) {
    if (isAbsent(error)) return "absent";
    throw error;
  }
}

/** Removes our chain and every jump to it from one family. Nothing of it there is success. */
export async function removeForwardLast(
  family: IPFamily,
  chain: string,
  signal: AbortSignal,
): Promise<void> {
  const program = programs[family];
  try {
    const listing = await run([`${program}-save`, "-t", "filter"], "", signal);
    if (!listing.includes(`:${chain} `)) return;
    for (let copies = jumpsIn(listing, chain); copies > 0; copies -= 1) {
      await run([program, "-w", waitSeconds, "-D", "FORWARD", "-j", chain], "", signal);
    }
    await run([program, "-w", waitSeconds, "-F", chain], "", signal);
    await run([program, "-w", waitSeconds, "-X", chain], "", signal);
  } catch (error) {
    if (!isAbsent(error)) throw error;
  }
}
