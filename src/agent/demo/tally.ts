/** What came back for one request to the backend. */
export type Answer =
  | { readonly kind: "answered"; readonly pod: string; readonly version: string }
  | { readonly kind: "failed"; readonly why: string };

/** Reads one line that `ask` in the frontend printed. */
export function parseAnswer(line: string): Answer {
  const [, pod, version] = /^hello from (\S+) (\S+)$/.exec(line.trim()) ?? [];
  if (pod === undefined || version === undefined) {
    return { kind: "failed", why: line.replace(/^no answer: /, "").trim() || "an empty answer" };
  }
  return { kind: "answered", pod, version };
}

/** Counts of answers. Only grows. */
export class Tally {
  readonly #perPod = new Map<string, number>();
  readonly #perVersion = new Map<string, number>();
  readonly #failures: string[] = [];

  add(answer: Answer): void {
    if (answer.kind === "failed") {
      this.#failures.push(answer.why);
      return;
    }
    const { pod, version } = answer;
    this.#perPod.set(pod, (this.#perPod.get(pod) ?? 0) + 1);
    this.#perVersion.set(version, (this.#perVersion.get(version) ?? 0) + 1);
  }

  /** Requests that were answered, by the pod that did, in the order of the pods' names. */
  get perPod(): ReadonlyMap<string, number> {
    return new Map([...this.#perPod].toSorted(([a], [b]) => (a < b ? -1 : 1)));
  }

  get answered(): number {
    return [...this.#perPod.values()].reduce((sum, count) => sum + count, 0);
  }

  get failed(): number {
    return this.#failures.length;
  }

  /** Why requests failed, each reason once. */
  get reasons(): readonly string[] {
    return [...new Set(this.#failures)];
  }

  /** `v1 120, v2 85`. */
  describeVersions(): string {
    return [...this.#perVersion]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([version, count]) => `${version} ${count}`)
      .join(", ");
  }
}

/** The smallest share of the mean that still counts as near evenly: chance alone stays far above it. */
export const fairShare = 0.35;

/** Pods that answered less than {@link fairShare} of the mean, of all that should have answered. */
export function neglected(
  perPod: ReadonlyMap<string, number>,
  pods: readonly string[],
): readonly string[] {
  const total = pods.reduce((sum, pod) => sum + (perPod.get(pod) ?? 0), 0);
  const floor = (total / pods.length) * fairShare;
  return pods.filter((pod) => (perPod.get(pod) ?? 0) < floor || total === 0);
}
