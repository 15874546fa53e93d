import { execFileSync } from "node:child_process";
import { globSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

import packageJson from "../../../package.json" with { type: "json" };
import { root } from "../../e2e/lib/machine.ts";

/** What the package under test calls itself, and a version below it. */
export const versions = { current: packageJson.version, previous: "0.0.9" } as const;

/** Makes packages of both versions from the sources as they are; not compressed: emulated, that would take a minute. */
export function makePackages(
  scratch: string,
  files: Readonly<Record<keyof typeof versions, string>>,
): void {
  const outdir = join(scratch, "packages");
  for (const each of ["current", "previous"] as const) {
    const options = ["--outdir", outdir, "--version", versions[each], "--arch", "amd64"];
    const argv = [
      join(root, "scripts/package.ts"),
      ...options,
      "--only",
      "deb",
      "--compression",
      "none",
    ];
    // A time of their own: the sources may be no git checkout.
    const env = { SOURCE_DATE_EPOCH: "1767225600", ...process.env };
    execFileSync(process.execPath, argv, {
      cwd: root,
      env,
      stdio: ["ignore", "ignore", "inherit"],
    });
    const [made] = globSync(join(outdir, "*.deb"));
    if (made === undefined) throw new Error(`no package was made in ${outdir}`);
    renameSync(made, files[each]);
  }
  rmSync(outdir, { recursive: true, force: true });
}
