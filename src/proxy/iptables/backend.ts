import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { IptablesVariant } from "../../netfilter/iptables.ts";
import type { Deletion } from "../../netfilter/monitor.ts";
import type { ApplyResult, PacketCounters, RuleBackend, RulesContext } from "../backend.ts";
import type { PlannedPort } from "../plan.ts";
import { RulesApplier, type RulesHost, systemRulesHost } from "./apply.ts";
import { pause, restoreTexts } from "./changes.ts";
import { DesiredRules } from "./desired.ts";
import { Echoes } from "./echoes.ts";
import { reconcile } from "./reconcile.ts";

/** With more endpoints than this their rules have no comments, which are two fifths of all text. */
const defaultLargeThreshold = 1000;

/** Service rules of one family in the host's iptables, in the chains that kube-proxy makes. */
export class IptablesBackend implements RuleBackend {
  readonly mode = "iptables";
  readonly #desired: DesiredRules;
  readonly #applier: RulesApplier;
  readonly #echoes: Echoes;
  readonly #family: "ip" | "ip6";
  /** What the last deletion that concerned us makes doubtful. */
  #doubt: "jumps" | "all" = "all";

  constructor(options: {
    readonly context: RulesContext;
    readonly logger: Logger;
    readonly clock: Clock;
    /** Endpoints, default 1000: with more of them their rules have no comments. */
    readonly largeThreshold?: number;
    /** Default: this machine. */
    readonly host?: RulesHost;
  }) {
    const { context, logger, clock, largeThreshold = defaultLargeThreshold } = options;
    this.#family = context.family === "IPv4" ? "ip" : "ip6";
    this.#desired = new DesiredRules(context, largeThreshold);
    this.#echoes = new Echoes(clock);
    this.#applier = new RulesApplier({
      desired: this.#desired,
      logger,
      clock,
      host: options.host ?? systemRulesHost(context.family, logger),
    });
  }

  /** The kind of iptables that has the rules; undefined before the first synchronisation. */
  get variant(): IptablesVariant | undefined {
    return this.#applier.program?.variant;
  }

  setContext(context: RulesContext): void {
    this.#desired.setContext(context);
  }

  set(key: string, plan: PlannedPort | undefined): void {
    this.#desired.set(key, plan);
  }

  setHealthPorts(ports: readonly number[]): void {
    this.#desired.setFacts({ healthPorts: ports.toSorted((a, b) => a - b) });
  }

  conflicts(key: string): readonly (readonly [string, string])[] {
    return this.#desired.conflicts(key);
  }

  isClusterIP(ip: string): boolean {
    return this.#desired.isClusterIP(ip);
  }

  sync(signal: AbortSignal): Promise<ApplyResult> {
    return this.#applier.sync((changes) => this.#echoes.remember(changes), signal);
  }

  distrust(): void {
    this.#applier.distrust(this.#doubt);
    this.#doubt = "all";
  }

  /** Only the nf_tables kind is reported. A rule of others that left a chain of the system's costs a look at that chain. */
  concerns(deletion: Deletion): boolean {
    if (deletion.family !== this.#family || this.#applier.program?.variant !== "nf_tables") {
      return false;
    }
    const doubt = this.#echoes.judge(deletion);
    if (doubt === undefined) return false;
    this.#doubt = doubt;
    return true;
  }

  check(signal: AbortSignal): Promise<boolean> {
    return this.#applier.areJumpsThere(signal);
  }

  readonly hasGarbage = false;

  /** Node ports on loopback have no rule of their own, so nobody counts them. */
  async packetCounters(signal: AbortSignal): Promise<PacketCounters> {
    const rules = await this.#applier.counters("filter", "KUBE-FORWARD", signal);
    const invalid = rules?.find(({ text }) => text.includes("--ctstate INVALID"));
    return { invalidDropped: invalid?.packets, localhostNodePorts: undefined };
  }

  render(): string {
    const texts = restoreTexts(reconcile(this.#desired, new Map()), Infinity);
    return [...texts].filter((text) => text !== pause).join("\n");
  }

  snapshot(): Map<string, string> {
    return this.#desired.snapshot();
  }
}
