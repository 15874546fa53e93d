import type { Backend } from "./types.ts";

/** What tells two backends of one port apart. */
export function backendID({ ip, port }: Backend): string {
  return `${ip} . ${port}`;
}

/**
 * Gives each wanted backend a slot. Who has a slot below the new count keeps it; the others fill the holes in their
 * order. So one that goes costs two slots (its own, which the last one takes, and the last), one that comes or takes
 * another's place costs one. Packets choose slots at random: which slot is whose has no effect on them.
 *
 * @param before Ids by slot, as {@link backendID} gives them; undefined = nobody known.
 * @returns `wanted` itself when its order is right.
 */
export function placeBackends(
  before: readonly (string | undefined)[],
  wanted: readonly Backend[],
): readonly Backend[] {
  if (before.length === 0 || wanted.length < 2) return wanted;
  const slotOf = new Map<string, number>();
  for (const [slot, id] of before.entries()) {
    if (id !== undefined && slot < wanted.length) slotOf.set(id, slot);
  }
  const placed: (Backend | undefined)[] = wanted.map(() => undefined);
  const homeless: Backend[] = [];
  for (const backend of wanted) {
    const slot = slotOf.get(backendID(backend));
    if (slot !== undefined && placed[slot] === undefined) placed[slot] = backend;
    else homeless.push(backend);
  }
  let next = 0;
  let moved = false;
  const order = placed.map((backend, slot) => {
    const found = backend ?? homeless[next++];
    moved ||= found !== wanted[slot];
    return found;
  });
  return moved ? order.filter((backend) => backend !== undefined) : wanted;
}
