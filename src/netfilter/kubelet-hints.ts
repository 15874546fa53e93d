import { once } from "node:events";

import type { IPFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage, isAbort } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { Iptables, probeIptables } from "./iptables.ts";

/** By its existence others see which kind of iptables this machine uses, and write their rules with the same. */
export const hintChain = "KUBE-IPTABLES-HINT";
/** Empty, in all three tables: gone when somebody empties the firewall. */
export const kubeletCanary = "KUBE-KUBELET-CANARY";
export const firewallChain = "KUBE-FIREWALL";

/**
 * Against packets for 127.0.0.0/8 from outside, which the setting route_localnet would let in (CVE-2020-8558). The
 * Service proxy of kind iptables has the same rule.
 */
export const martianRule = {
  comment: "block incoming localnet connections",
  text: "-d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
} as const;

const tables = ["mangle", "nat", "filter"] as const;
const intervalMs = 60_000;

type Lister = Pick<Iptables, "list" | "restore">;

/** What is missing of one family's hints, as text for `iptables-restore`; empty when all is there. */
export async function missingHints(
  family: IPFamily,
  iptables: Pick<Iptables, "list">,
  signal: AbortSignal,
): Promise<string> {
  const lines = new Map<string, string[]>(tables.map((table) => [table, []]));
  for (const table of tables) {
    for (const chain of table === "mangle" ? [hintChain, kubeletCanary] : [kubeletCanary]) {
      if ((await iptables.list(table, chain, signal)) === undefined) {
        lines.get(table)?.push(`:${chain} - [0:0]`);
      }
    }
  }
  // IPv6 knows no way from outside to ::1.
  if (family === "IPv4") lines.get("filter")?.push(...(await missingFirewall(iptables, signal)));
  return tables
    .flatMap((table) => {
      const own = lines.get(table) ?? [];
      return own.length === 0 ? [] : [`*${table}`, ...own, "COMMIT", ""];
    })
    .join("\n");
}

async function missingFirewall(
  iptables: Pick<Iptables, "list">,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const chain = await iptables.list("filter", firewallChain, signal);
  const lines = chain === undefined ? [`:${firewallChain} - [0:0]`] : [];
  if (chain?.includes(martianRule.comment) !== true) {
    lines.push(
      `-A ${firewallChain} -m comment --comment "${martianRule.comment}" ${martianRule.text}`,
    );
  }
  for (const from of ["OUTPUT", "INPUT"]) {
    const rules = (await iptables.list("filter", from, signal))?.split("\n") ?? [];
    if (!rules.some((rule) => rule.trimEnd().endsWith(`-j ${firewallChain}`))) {
      lines.push(`-I ${from} -j ${firewallChain}`);
    }
  }
  return lines;
}

/** Chains that every kubelet makes, for whom other programs on the node look. Nothing of the node itself needs them. */
export class KubeletHints {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #open: (family: IPFamily, signal: AbortSignal) => Promise<Lister | undefined>;

  constructor(options: {
    readonly clock: Clock;
    readonly logger: Logger;
    /** Undefined when the host has no iptables. Default: this host's. */
    readonly open?: (family: IPFamily, signal: AbortSignal) => Promise<Lister | undefined>;
  }) {
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#open = options.open ?? openIptables;
  }

  /** Makes the chains, and looks every minute whether they are still there, until `signal` aborts. Never fails. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all((["IPv4", "IPv6"] as const).map((family) => this.#keep(family, signal)));
  }

  async #keep(family: IPFamily, signal: AbortSignal): Promise<void> {
    const iptables = await this.#open(family, signal);
    if (iptables === undefined) {
      this.#logger.log("debug", "no iptables, and so nobody who looks for its chains", {
        ipFamily: family,
      });
      if (!signal.aborted) await once(signal, "abort");
      return;
    }
    for (let working = true; !signal.aborted;) {
      try {
        const text = await missingHints(family, iptables, signal);
        if (text !== "") await iptables.restore(text, signal);
        working = true;
      } catch (error) {
        if (isAbort(error)) return;
        this.#logger.log(
          working ? "info" : "debug",
          "chains that other programs look for could not be made",
          { ipFamily: family, error: errorMessage(error) },
        );
        working = false;
      }
      await this.#clock.sleep(intervalMs, signal).catch(() => undefined);
    }
  }
}

async function openIptables(family: IPFamily, signal: AbortSignal): Promise<Lister | undefined> {
  const program = await probeIptables(signal);
  return program === undefined ? undefined : new Iptables(family, program);
}
