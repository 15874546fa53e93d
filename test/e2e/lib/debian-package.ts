import { execFileSync } from "node:child_process";
import { globSync, mkdirSync } from "node:fs";

/** A package file, or why there is none. */
export interface DebianPackage {
  readonly file: string;
  readonly missing: string | undefined;
}

const cache = "/tmp/remora-test-packages";

/**
 * Fetches a package of this Debian without installing it; once per machine. Machines of tests have no network, and some
 * packages cannot be installed beside what the tests need (busybox beside busybox-static).
 */
export function fetchDebianPackage(name: string): DebianPackage {
  const found = (): string | undefined => globSync(`${cache}/${name}_*.deb`)[0];
  try {
    mkdirSync(cache, { recursive: true });
    if (found() === undefined) {
      execFileSync("apt-get", ["download", "-qq", name], { cwd: cache, stdio: "ignore" });
    }
  } catch {
    // Told below.
  }
  const file = found();
  return {
    file: file ?? "",
    missing:
      file === undefined ? `needs Debian's package ${name}; apt-get cannot fetch it` : undefined,
  };
}
