import { readFile } from "node:fs/promises";

import type { IPFamily } from "../lib/cidr.ts";
import { errorCode, RemoraError, SetupError } from "../lib/errors.ts";
import { type ExecResult, execResult } from "../lib/exec.ts";
import { explainMissingProgram } from "./errors.ts";

/**
 * What a rule that one kind writes is to the other: nothing, although the kernel obeys both. `nf_tables` translates for
 * nftables; `legacy` is the kernel's older interface, whose tables are read and written as a whole.
 */
export type IptablesVariant = "nf_tables" | "legacy";

/** One kind of iptables on this host. */
export interface IptablesProgram {
  readonly version: string;
  readonly variant: IptablesVariant;
  /** What follows `iptables` in the names of its programs: empty for the host's default. */
  readonly suffix: "" | "-nft" | "-legacy";
}

/** iptables refused something; of a restore, nothing of the table it was in took effect. */
export class IptablesError extends RemoraError {
  readonly code = "REMORA_IPTABLES";
  override readonly retryable = true;
  /** `busy`: somebody else held the lock too long; says nothing about the rules. */
  readonly failure: "busy" | "other";
  /** Line of the text that was refused, from 1, where iptables says which. */
  readonly line: number | undefined;

  constructor(program: string, result: Pick<ExecResult, "exitCode" | "stderr">) {
    const { exitCode, stderr } = result;
    const said = stderr
      .trim()
      .replaceAll(/\s*\n\s*/g, "; ")
      .slice(0, 400);
    super(`${program} ended with ${exitCode ?? "no code"}: ${said === "" ? "no message" : said}`);
    // 4 is RESOURCE_PROBLEM: the xtables lock, or the kernel's tables changed under it once too often.
    this.failure = exitCode === 4 ? "busy" : "other";
    const line = /\bline:? (\d+)/.exec(stderr)?.[1];
    this.line = line === undefined ? undefined : Number(line);
  }
}

/** Seconds that iptables waits for others. */
export const lockWait = ["-w", "5"] as const;

function names(family: IPFamily): string {
  return family === "IPv4" ? "iptables" : "ip6tables";
}

async function run(
  argv: readonly [string, ...string[]],
  stdin: string,
  signal: AbortSignal,
): Promise<ExecResult> {
  try {
    return await execResult(argv, { stdin, signal });
  } catch (error) {
    throw explainMissingProgram(error, argv[0], "iptables");
  }
}

function failure(program: string, result: ExecResult): IptablesError | SetupError {
  if (/Permission denied|you must be root/i.test(result.stderr)) {
    return new SetupError(
      `${program} may not change packet rules: run remora as root (CAP_NET_ADMIN in the host's network namespace)`,
    );
  }
  if (/can't initialize|Could not fetch|Table does not exist/i.test(result.stderr)) {
    return new SetupError(
      `${program}: the kernel cannot do it (${result.stderr.trim().slice(0, 200)}): load ip_tables and iptable_nat, or use proxy mode nftables`,
    );
  }
  return new IptablesError(program, result);
}

/** The programs of one family. Every call waits for the lock of others. */
export class Iptables {
  readonly family: IPFamily;
  readonly program: IptablesProgram;

  constructor(family: IPFamily, program: IptablesProgram) {
    this.family = family;
    this.program = program;
  }

  #name(what: "" | "-save" | "-restore"): string {
    return `${names(this.family)}${this.program.suffix}${what}`;
  }

  /**
   * Carries out a text of tables, each at once or not at all. Chains that it does not name stay as they are.
   *
   * @throws {IptablesError}, {SetupError}, `AbortError`.
   */
  async restore(text: string, signal: AbortSignal): Promise<void> {
    const program = this.#name("-restore");
    const result = await run([program, ...lockWait, "--noflush", "--counters"], text, signal);
    if (result.exitCode !== 0) throw failure(program, result);
  }

  /**
   * All rules of one table. Empty when there is no such table, or nftables has made of it what iptables cannot read.
   *
   * @throws as {@link restore}.
   */
  async save(table: string, signal: AbortSignal): Promise<string> {
    const program = this.#name("-save");
    const result = await run([program, "-t", table], "", signal);
    if (result.exitCode !== 0) throw failure(program, result);
    return result.stdout;
  }

  /**
   * The rules of one chain as `-S` lists them, or undefined when there is no such chain.
   *
   * @param counters With `-c PACKETS BYTES` in each.
   * @throws {IptablesError} busy, {SetupError}, `AbortError`.
   */
  async list(
    table: string,
    chain: string,
    signal: AbortSignal,
    counters = false,
  ): Promise<string | undefined> {
    const program = this.#name("");
    const how = [...lockWait, "-t", table, ...(counters ? ["-v"] : []), "-S", chain] as const;
    const result = await run([program, ...how], "", signal);
    if (result.exitCode === 0) return result.stdout;
    // iptables-nft 1.8.9 says of a chain that is missing that it is incompatible.
    const missing = /No chain\/target\/match|does not exist|is incompatible/i;
    if (result.exitCode === 1 && missing.test(result.stderr)) return undefined;
    throw failure(program, result);
  }
}

async function versionOf(
  suffix: IptablesProgram["suffix"],
  signal: AbortSignal,
): Promise<IptablesProgram | undefined> {
  try {
    const { exitCode, stdout } = await execResult([`iptables${suffix}`, "--version"], { signal });
    const version = /v(\d+(?:\.\d+)+)/.exec(stdout)?.[1];
    if (exitCode !== 0 || version === undefined) return undefined;
    return { version, variant: stdout.includes("nf_tables") ? "nf_tables" : "legacy", suffix };
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Whether the kernel has tables of the older interface: to ask its program makes them. */
async function hasLegacyTables(family: IPFamily): Promise<boolean> {
  const file = family === "IPv4" ? "ip_tables_names" : "ip6_tables_names";
  try {
    return (await readFile(`/proc/self/net/${file}`, "utf8")).trim() !== "";
  } catch {
    return false;
  }
}

/** All kinds of iptables on this host, the default first. */
export async function installedIptables(signal: AbortSignal): Promise<readonly IptablesProgram[]> {
  const found: IptablesProgram[] = [];
  for (const suffix of ["", "-nft", "-legacy"] as const) {
    const program = await versionOf(suffix, signal);
    if (program !== undefined && !found.some(({ variant }) => variant === program.variant)) {
      found.push(program);
    }
  }
  return found;
}

/** Whether asking a kind of iptables does not make tables by itself. */
export async function mayHaveRules(
  { variant }: IptablesProgram,
  family: IPFamily,
): Promise<boolean> {
  return variant === "nf_tables" || hasLegacyTables(family);
}

const hintChains = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];

/** Kubelets say by a chain which kind this machine uses. */
async function isHinted(program: IptablesProgram, signal: AbortSignal): Promise<boolean> {
  if (!(await mayHaveRules(program, "IPv4"))) return false;
  const iptables = new Iptables("IPv4", program);
  for (const chain of hintChains) {
    try {
      if ((await iptables.list("mangle", chain, signal)) !== undefined) return true;
    } catch (error) {
      if (!(error instanceof SetupError || error instanceof IptablesError)) throw error;
    }
  }
  return false;
}

/**
 * The iptables to use: the kind that a kubelet's hint is in, nf_tables first, else the host's default. Undefined when
 * none is installed.
 *
 * @throws `AbortError`.
 */
export async function probeIptables(signal: AbortSignal): Promise<IptablesProgram | undefined> {
  const installed = await installedIptables(signal);
  for (const variant of ["nf_tables", "legacy"]) {
    const program = installed.find((one) => one.variant === variant);
    if (program !== undefined && (await isHinted(program, signal))) return program;
  }
  return installed[0];
}
