import type { Clock } from "../../lib/clock.ts";
import type { Deletion } from "../../netfilter/monitor.ts";
import type { Changes } from "./changes.ts";
import { jumps, tables } from "./fixed.ts";

/** How long events of an own transaction may take to come back from the kernel. */
const echoMs = 2000;

/** Tells deletions by others from those that our own transactions cause. Wrong at worst in the careful direction. */
export class Echoes {
  readonly #clock: Clock;
  readonly #own = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Notes what a synchronisation is about to delete or empty. */
  remember({ chains, edits, dead, jumps: ways }: Changes): void {
    const now = this.#clock.monotonic();
    for (const [name, at] of this.#own) if (now - at > echoMs) this.#own.delete(name);
    const own = (table: string, name: string): void => {
      this.#own.set(`${table} ${name}`, now);
    };
    for (const group of chains) for (const { table, name } of group) own(table, name);
    for (const { table, chain } of edits) own(table, chain);
    for (const { table, name } of dead) own(table, name);
    for (const { table, line } of ways) own(table, line.split(" ")[1] ?? "");
  }

  /** What a deletion by others makes doubtful; undefined for one that is our own, or none of our business. */
  judge({ kind, table, name }: Deletion): "jumps" | "all" | undefined {
    if (!tables.some((one) => one === table)) return undefined;
    if (kind === "table") return "all";
    if (kind !== "chain" && kind !== "rule") return undefined;
    const ours = name.startsWith("KUBE-");
    const way = jumps.some((jump) => jump.table === table && jump.from === name);
    if (!ours && !way) return undefined;
    const at = this.#own.get(`${table} ${name}`);
    if (at !== undefined && this.#clock.monotonic() - at <= echoMs) return undefined;
    return ours ? "all" : "jumps";
  }
}
