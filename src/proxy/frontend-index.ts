import type { Frontend, PlannedPort } from "./plan.ts";

type Place = Pick<Frontend, "ip" | "port">;

/** Node ports have no address of their own. */
function placeOf({ ip, port }: Place): string {
  return ip === "" ? `:${port}` : ip;
}

/** The older Service, then by name; ports of one Service by their own. */
function isBefore(a: PlannedPort, b: PlannedPort): boolean {
  return a.rank === b.rank ? a.key < b.key : a.rank < b.rank;
}

function has(plan: PlannedPort, protocol: string, { ip, port }: Place): boolean {
  return (
    plan.protocol === protocol &&
    plan.frontends.some((frontend) => frontend.ip === ip && frontend.port === port)
  );
}

/**
 * Planned ports by the addresses that they answer on: who has one that several want. By address alone, because nearly
 * always one Service has it: an index by address and port would cost a text for each of them.
 */
export class FrontendIndex {
  readonly #at = new Map<string, PlannedPort | readonly PlannedPort[]>();

  add(plan: PlannedPort): void {
    for (const frontend of plan.frontends) {
      const place = placeOf(frontend);
      const there = this.#at.get(place);
      if (there === undefined) {
        this.#at.set(place, plan);
      } else if (!("key" in there)) {
        if (!there.includes(plan)) this.#at.set(place, [...there, plan]);
      } else if (there !== plan) {
        this.#at.set(place, [there, plan]);
      }
    }
  }

  remove(plan: PlannedPort): void {
    for (const frontend of plan.frontends) {
      const place = placeOf(frontend);
      if (this.#at.get(place) === plan) {
        this.#at.delete(place);
        continue;
      }
      const left = this.#ports(place).filter((other) => other !== plan);
      const [only] = left;
      if (only === undefined) this.#at.delete(place);
      else this.#at.set(place, left.length === 1 ? only : left);
    }
  }

  #ports(place: string): readonly PlannedPort[] {
    const there = this.#at.get(place);
    if (there === undefined) return [];
    return "key" in there ? [there] : there;
  }

  /** Ports that want this address and port of this protocol, the one that has it first. */
  claimants(protocol: string, frontend: Place): readonly PlannedPort[] {
    const there = this.#ports(placeOf(frontend)).filter((plan) => has(plan, protocol, frontend));
    return there.length < 2 ? there : there.toSorted((a, b) => (isBefore(a, b) ? -1 : 1));
  }

  /** Others that want something of what `plan` wants. */
  rivals(plan: PlannedPort): readonly PlannedPort[] {
    const found: PlannedPort[] = [];
    for (const frontend of plan.frontends) {
      const there = this.#at.get(placeOf(frontend));
      // Usual, and asked for each port: nobody but the port itself is there.
      if (there === undefined || there === plan || ("key" in there && there.key === plan.key)) {
        continue;
      }
      for (const other of this.claimants(plan.protocol, frontend)) {
        if (other.key !== plan.key && !found.includes(other)) found.push(other);
      }
    }
    return found;
  }

  /** `plan` with those frontends only that are its own, each once. */
  effective(plan: PlannedPort): PlannedPort {
    const { frontends, protocol } = plan;
    const [first] = frontends;
    if (frontends.length === 1 && first !== undefined && this.#at.get(placeOf(first)) === plan) {
      return plan;
    }
    const own = frontends.filter((frontend, at) => {
      if (this.#at.get(placeOf(frontend)) !== plan) {
        const [winner] = this.claimants(protocol, frontend);
        if (winner !== undefined && winner.key !== plan.key) return false;
      }
      return !frontends
        .slice(0, at)
        .some((other) => other.ip === frontend.ip && other.port === frontend.port);
    });
    return own.length === frontends.length ? plan : { ...plan, frontends: own };
  }

  /** Whether it is the ClusterIP of a port. */
  hasClusterIP(ip: string): boolean {
    return this.#ports(ip).some((plan) => plan.clusterIP === ip);
  }
}
