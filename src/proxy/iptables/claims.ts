import type { Frontend, PlannedPort } from "../plan.ts";

/** Which of several Services that claim one address and port has it: the oldest, then by name. */
export class FrontendClaims {
  /** Ports by frontend, the one that has it first. Mostly there is one, and no list. */
  readonly #claimants = new Map<string, string | readonly string[]>();
  readonly #rankOf: (key: string) => string;

  /** @param rankOf The rank of a port that is claimed for. */
  constructor(rankOf: (key: string) => string) {
    this.#rankOf = rankOf;
  }

  /** @returns Ports whose frontends are others' from now on, or their own again. */
  replace(before: PlannedPort | undefined, after: PlannedPort | undefined): ReadonlySet<string> {
    const touched = new Set<string>();
    for (const at of places(before))
      this.#change(at, touched, (keys) => without(keys, before?.key));
    for (const at of places(after)) {
      this.#change(at, touched, (keys) =>
        after === undefined ? keys : [...without(keys, after.key), after.key],
      );
    }
    for (const { key } of [before, after].flatMap((plan) => plan ?? [])) touched.delete(key);
    return touched;
  }

  #change(
    at: string,
    touched: Set<string>,
    change: (keys: readonly string[]) => readonly string[],
  ): void {
    const before = this.#of(at);
    const after = change(before);
    const sorted =
      after.length < 2
        ? after
        : after.toSorted((a, b) => (this.#order(a) < this.#order(b) ? -1 : 1));
    const [first] = sorted;
    if (first === undefined) this.#claimants.delete(at);
    else this.#claimants.set(at, sorted.length === 1 ? first : sorted);
    if (before[0] === first) return;
    for (const key of [before[0], first]) if (key !== undefined) touched.add(key);
  }

  #order(key: string): string {
    return `${this.#rankOf(key)} ${key}`;
  }

  #of(at: string): readonly string[] {
    const found = this.#claimants.get(at);
    if (found === undefined) return [];
    return typeof found === "string" ? [found] : found;
  }

  /** Frontends of a port that another one has. */
  lost(plan: PlannedPort): readonly Frontend[] {
    const lost = plan.frontends.filter(
      (frontend) => this.#of(place(frontend, plan.protocol))[0] !== plan.key,
    );
    return lost.length === 0 ? nothing : lost;
  }

  /** Pairs `[loser, winner]` that a port is part of. */
  conflicts(plan: PlannedPort): readonly (readonly [string, string])[] {
    return places(plan).flatMap((at) => {
      const [winner = "", ...losers] = this.#of(at);
      return losers
        .filter((loser) => winner === plan.key || loser === plan.key)
        .map((loser) => [loser, winner] as const);
    });
  }
}

const nothing: readonly Frontend[] = [];

function place({ ip, port }: Frontend, protocol: string): string {
  return `${ip} ${port} ${protocol}`;
}

function places(plan: PlannedPort | undefined): readonly string[] {
  if (plan === undefined) return [];
  return [...new Set(plan.frontends.map((frontend) => place(frontend, plan.protocol)))];
}

function without(keys: readonly string[], key: string | undefined): readonly string[] {
  return keys.filter((one) => one !== key);
}
