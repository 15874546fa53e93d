import * as fc from "fast-check";

import { PatientClock } from "../certificates/fixture.ts";

/** What happens to a machine for a while. */
export interface Spell {
  /** `asleep`: the clock goes on and nobody looks at it; `off`: the program ends and starts again after it. */
  readonly kind: "awake" | "asleep" | "off" | "clock set back" | "clock set forward";
  readonly days: number;
}

export const dayMs = 86_400_000;

/** A clock whose hands somebody moves: the time that passes is another matter. */
export class SetClock extends PatientClock {
  #set = 0;

  override now(): number {
    return super.now() + this.#set;
  }

  /** @param ms Negative: back. */
  set(ms: number): void {
    this.#set += ms;
  }
}

const spell: fc.Arbitrary<Spell> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("awake" as const),
      days: fc.integer({ min: 1, max: 400 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constantFrom("asleep" as const, "off" as const),
      days: fc.integer({ min: 1, max: 430 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constantFrom("clock set back" as const, "clock set forward" as const),
      days: fc.integer({ min: 1, max: 500 }),
    }),
  },
);

/** Spells of ten years at least; steps of the clock count for nothing. */
export const tenYears: fc.Arbitrary<readonly Spell[]> = fc
  .array(spell, { minLength: 60, maxLength: 60 })
  .map((spells) => {
    const out: Spell[] = [];
    let days = 0;
    for (const each of spells) {
      if (days >= 3650) break;
      out.push(each);
      if (!each.kind.startsWith("clock")) days += each.days;
    }
    return [...out, { kind: "awake", days: Math.max(1, 3650 - days) }];
  });

/** What every run tries first: a clock that was years ahead when everything began, and one that is set to and fro. */
export const unlucky: readonly Spell[] = [
  { kind: "clock set forward", days: 1500 },
  { kind: "awake", days: 30 },
  { kind: "clock set back", days: 1530 },
  { kind: "awake", days: 30 },
  { kind: "off", days: 425 },
  { kind: "clock set back", days: 2 },
  { kind: "asleep", days: 364 },
  { kind: "awake", days: 30 },
];
