import { errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import {
  intermediateName,
  intermediatePrefix,
  type LimitedPod,
  parseShaping,
  type Shaping,
  shapingCommands,
} from "./bandwidth-plan.ts";
import type { Lease } from "./leases.ts";
import { deleteLink, ipBatch, type Link, runTool, vethName } from "./links.ts";

async function look(
  pods: readonly LimitedPod[],
  links: readonly Link[],
  signal: AbortSignal,
): Promise<Shaping> {
  const qdiscs = await runTool(["tc", "qdisc", "show"], "", signal);
  const lines = pods
    .filter(({ veth }) => links.some(({ name }) => name === veth))
    .map(({ veth }) => `filter show dev ${veth} ingress\n`);
  // An interface that has gone meanwhile is no reason to stop. To put in place what is there already does no harm.
  const tc = ["tc", "-force", "-batch", "-"] as const;
  const filters =
    lines.length === 0 ? "" : await runTool(tc, lines.join(""), signal).catch(() => "");
  return parseShaping(links, { qdiscs, filters });
}

export interface PodBandwidthsOptions {
  readonly bridge: string;
  readonly logger: Logger;
}

/**
 * Keeps pods to the bandwidth that their annotations say (`kubernetes.io/ingress-bandwidth`, `egress-bandwidth`), on the
 * node's side of their interfaces, where no pod reaches. Calls must not overlap.
 */
export class PodBandwidths {
  readonly #options: PodBandwidthsOptions;
  /** By sandbox: why it is not limited. */
  readonly #problems = new Map<string, string>();

  constructor(options: PodBandwidthsOptions) {
    this.#options = options;
  }

  /** Why what the pod asks for is not kept to; undefined when it is, and for those that ask for nothing. */
  problem(sandboxID: string): string | undefined {
    return this.#problems.get(sandboxID);
  }

  /**
   * Puts in place what is missing of the limits of `leases`. Never fails for what the machine refuses: pods run without a
   * limit then ({@link problem}), and the next call tries again.
   *
   * @param links As they are now.
   * @throws `AbortError`.
   */
  async ensure(
    leases: Iterable<Lease>,
    { links, mtu }: { readonly links: readonly Link[]; readonly mtu: number },
    signal: AbortSignal,
  ): Promise<void> {
    const limited = [...leases].flatMap(({ bandwidth, podKey, sandboxID }) => {
      if (bandwidth === undefined) return [];
      const intermediate = intermediateName(this.#options.bridge, sandboxID);
      return [{ sandboxID, podKey, veth: vethName(sandboxID), intermediate, bandwidth, mtu }];
    });
    if (limited.length === 0) return;
    let shaping: Shaping;
    try {
      shaping = await look(limited, links, signal);
    } catch (error) {
      signal.throwIfAborted();
      for (const pod of limited) this.#note(pod, error);
      return;
    }
    for (const pod of limited) {
      const { ip, tc } = shapingCommands(pod, shaping);
      try {
        if (ip.length > 0) await ipBatch(ip, signal);
        if (tc.length > 0) await runTool(["tc", "-batch", "-"], `${tc.join("\n")}\n`, signal);
        this.#note(pod, undefined);
      } catch (error) {
        signal.throwIfAborted();
        this.#note(pod, error);
      }
    }
  }

  /** Logs a trouble when it begins and when it ends. */
  #note(
    { podKey, sandboxID }: LimitedPod & Pick<Lease, "podKey" | "sandboxID">,
    error: unknown,
  ): void {
    const { logger } = this.#options;
    const before = this.#problems.get(sandboxID);
    if (error === undefined) {
      if (before === undefined) return;
      this.#problems.delete(sandboxID);
      logger.log("info", "the bandwidth of a pod is limited now", { pod: podKey });
      return;
    }
    const problem = errorMessage(error);
    this.#problems.set(sandboxID, problem);
    if (before === problem) return;
    logger.log("warn", "the bandwidth of a pod cannot be limited, will retry", {
      pod: podKey,
      error: problem,
    });
  }

  /** Takes away what outlives the pod's interface. */
  async remove(lease: Lease, signal: AbortSignal): Promise<void> {
    this.#problems.delete(lease.sandboxID);
    if (lease.bandwidth?.egressBits === undefined) return;
    await deleteLink(intermediateName(this.#options.bridge, lease.sandboxID), signal);
  }

  /** Takes away what is there of pods without a lease. */
  async collectGarbage(
    leases: Iterable<Lease>,
    links: readonly Link[],
    signal: AbortSignal,
  ): Promise<void> {
    const { bridge } = this.#options;
    const ours = links.filter(
      ({ kind, name }) => kind === "ifb" && name.startsWith(intermediatePrefix(bridge)),
    );
    if (ours.length === 0) return;
    const used = new Set([...leases].map(({ sandboxID }) => intermediateName(bridge, sandboxID)));
    for (const { name } of ours) if (!used.has(name)) await deleteLink(name, signal);
  }
}
