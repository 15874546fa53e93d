/** Versions of the CNI specification that are spoken here, oldest first. */
export const specVersions = [
  "0.1.0",
  "0.2.0",
  "0.3.0",
  "0.3.1",
  "0.4.0",
  "1.0.0",
  "1.1.0",
] as const;

/** What a configuration without `cniVersion` means. */
export const oldestVersion = "0.1.0";

type Triple = readonly [number, number, number];

/** Undefined when it is no version. A part that is left out is zero. */
function parseVersion(text: string): Triple | undefined {
  const [, major, minor = "0", patch = "0"] =
    /^(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?$/.exec(text) ?? [];
  if (major === undefined) return undefined;
  return [Number(major), Number(minor), Number(patch)];
}

/** Below zero when `a` is the older one. What is no version is older than every version. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [parseVersion(a), parseVersion(b)];
  if (left === undefined || right === undefined) {
    return Number(left !== undefined) - Number(right !== undefined);
  }
  return left[0] - right[0] || left[1] - right[1] || left[2] - right[2];
}

/** Whether `version` is at least `than`. */
export function atLeast(version: string, than: string): boolean {
  return compareVersions(version, than) >= 0;
}

/** Whether it can be spoken here. */
export function isSpoken(version: string): boolean {
  return specVersions.some((known) => known === version);
}

/** Whether it is a version at all. */
export function isVersion(text: string): boolean {
  return parseVersion(text) !== undefined;
}
