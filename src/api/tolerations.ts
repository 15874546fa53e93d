import type { Taint, Toleration } from "./types.gen.ts";

/** Whether the toleration covers the taint; an empty key with `Exists` covers all (v1.Toleration). */
export function tolerates(toleration: Toleration, taint: Taint): boolean {
  if (toleration.effect !== undefined && toleration.effect !== taint.effect) return false;
  const key = toleration.key ?? "";
  if (key !== "" && key !== taint.key) return false;
  const operator = toleration.operator ?? "Equal";
  if (operator === "Exists") return true;
  // Gt and Lt (KEP-5471) are behind a gate that is off by default: such a toleration covers nothing.
  return operator === "Equal" && (toleration.value ?? "") === (taint.value ?? "");
}

/** The first taint with one of `effects` that nothing tolerates. */
export function untoleratedTaint(
  taints: readonly Taint[],
  tolerations: readonly Toleration[],
  effects: readonly Taint["effect"][],
): Taint | undefined {
  return taints.find(
    (taint) =>
      effects.includes(taint.effect) && !tolerations.some((entry) => tolerates(entry, taint)),
  );
}
