import type { IPFamily } from "../../lib/cidr.ts";
import type { Protocol } from "../types.ts";
import { UnknownFactError } from "./errors.ts";
import type { Host } from "./host.ts";

/** Where rules look at a packet. */
export type HookName = "prerouting" | "input" | "forward" | "output" | "postrouting";

/** What conntrack says of the flow a packet belongs to. */
export type FlowState = "new" | "established" | "related" | "invalid" | "untracked";

/** The packet that is sent through the rules. */
export interface Packet {
  readonly family: IPFamily;
  readonly protocol: Protocol;
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  /** Empty: the node itself sends it. */
  readonly inInterface: string;
  /** `new` unless given. */
  readonly state?: FlowState;
  /** 0 unless given. */
  readonly mark?: number;
}

/** A rule that a packet matched. */
export interface Step {
  /** Program and table, as `nft ip remora-proxy` or `iptables nat`. */
  readonly table: string;
  readonly hook: HookName;
  readonly chain: string;
  readonly rule: string;
  /** The comment by which the rule's owner knows it; empty without. */
  readonly tag: string;
  /** What a map or chance said: `-> goto c2`. */
  readonly results: readonly string[];
}

/** Something that the packet left behind: the next packets may be treated differently. */
export interface Remembered {
  readonly container: string;
  readonly key: string;
}

/** What rules decided about a packet for good, as far as one hook is concerned. */
export type Final =
  | { readonly kind: "accept" }
  | { readonly kind: "drop" }
  | { readonly kind: "reject"; readonly how: "tcp-reset" | "icmp" };

/** What one rule says: nothing (`none`), or where to go on. */
export type Verdict =
  | Final
  | { readonly kind: "none" }
  | { readonly kind: "return" }
  | { readonly kind: "jump" | "goto"; readonly chain: string };

/** One of the outcomes of a decision by chance. */
export interface Branch<T> {
  /** Those of all branches add up to 1. */
  readonly weight: number;
  readonly outcome: T;
}

/** Decides by chance. The branches are asked for once, when the decision is first come to. */
export type Choose = <T>(branches: () => readonly Branch<T>[]) => T;

/**
 * A packet on its way, with the entry that conntrack has for it. Rules change it.
 */
export class Flow {
  readonly packet: Packet;
  readonly host: Host;
  readonly choose: Choose;
  source: string;
  destination: string;
  sourcePort: number;
  destinationPort: number;
  mark: number;
  ctMark = 0;
  readonly state: FlowState;
  /** Stands for what a rule draws while its draws are gone through; undefined: chance decides. */
  drawn: number | undefined;
  inInterface: string;
  /** Undefined: not routed yet, or not known. */
  outInterface: string | undefined;
  hook: HookName = "prerouting";
  /** A rule has decided about the destination; later ones are not asked. */
  destinationSet = false;
  /** The destination is not the one that was asked for. */
  translated = false;
  sourceSet = false;
  masqueraded = false;
  readonly steps: Step[] = [];
  readonly remembered: Remembered[] = [];
  /** Results of maps and chance of the rule that is being tried. */
  results: string[] = [];

  constructor(packet: Packet, host: Host, choose: Choose) {
    this.packet = packet;
    this.host = host;
    this.choose = choose;
    this.source = packet.source;
    this.destination = packet.destination;
    this.sourcePort = packet.sourcePort;
    this.destinationPort = packet.destinationPort;
    this.mark = packet.mark ?? 0;
    this.state = packet.state ?? "new";
    this.inInterface = packet.inInterface;
  }

  /** Sends the flow to another place. An empty port keeps the one that was asked for. */
  translateTo(ip: string, port: number | undefined): void {
    this.destinationSet = true;
    this.translated = true;
    this.destination = ip;
    this.destinationPort = port ?? this.destinationPort;
  }

  /** @throws {UnknownFactError} when the machine's routes do not tell. */
  knownOutInterface(): string {
    if (this.outInterface === undefined)
      throw new UnknownFactError(`the interface towards ${this.destination}`);
    return this.outInterface;
  }

  /** Gives the flow the node's address. */
  masquerade(): void {
    this.sourceSet = true;
    this.masqueraded = true;
  }
}

/** A chain that the kernel calls by itself. */
export interface BaseChain {
  /** As in {@link Step.table}. */
  readonly table: string;
  readonly name: string;
  readonly type: "filter" | "nat" | "route";
  readonly hook: HookName;
  readonly priority: number;
  readonly policy: "accept" | "drop";
  /** Runs a packet through; undefined when no rule decided and the policy does. */
  evaluate(flow: Flow): Final | undefined;
}

/** Rules of one program that packets of one family meet. */
export interface Ruleset {
  readonly bases: readonly BaseChain[];
}
