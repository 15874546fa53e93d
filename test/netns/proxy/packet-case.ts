import { it } from "node:test";

import type { ProxyMode } from "../../../src/proxy/backend.ts";
import type { Addresses } from "./addresses.ts";
import { Stage } from "./stage.ts";
import type { World } from "./world.ts";

/** What the files of cases get: where to run, and where to register. */
export interface Subject {
  readonly world: World;
  readonly mode: ProxyMode;
  readonly at: Addresses;
  /** Registers the test of one case. */
  readonly packet: (
    number: number,
    title: string,
    body: (stage: Stage) => Promise<void>,
    options?: { readonly skip?: string },
  ) => void;
}

/** Which cases have tests: `MODE FAMILY` by number. */
export class Registry {
  readonly #where = new Map<number, Set<string>>();

  note(number: number, where: string): void {
    this.#where.set(number, (this.#where.get(number) ?? new Set()).add(where));
  }

  has(number: number, where: string): boolean {
    return this.#where.get(number)?.has(where) === true;
  }

  /** Numbers of `wanted` without any test. */
  missing(wanted: readonly number[]): readonly number[] {
    return wanted.filter((number) => !this.#where.has(number));
  }
}

export function subject(world: World, at: Addresses, registry: Registry): Subject {
  const { mode } = world;
  return {
    world,
    mode,
    at,
    packet: (number, title, body, { skip } = {}) => {
      const where = `${mode} ${at.family}`;
      registry.note(number, where);
      it(
        `#${number} ${title} [${where}]`,
        { timeout: 60_000, ...(skip === undefined ? {} : { skip }) },
        async () => {
          const stage = new Stage(world, at, `case${number}-${at.suffix}-${world.takeNumber()}`);
          try {
            await body(stage);
          } finally {
            await stage.close();
          }
        },
      );
    },
  };
}
