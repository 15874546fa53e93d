import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { stateSchema } from "../../src/agent/ledger/state-marker.ts";
import { root } from "./bundle.ts";
import { debianVersion, filled } from "./debian.ts";
import type { Architecture } from "./node-binary.ts";
import { conffiles, gzip, type Release } from "./product.ts";
import { type Entry, file, installedKiB, md5sums, writeTree } from "./tree.ts";

function inScratch<T>(work: (scratch: string) => T): T {
  const scratch = mkdtempSync(join(tmpdir(), "remora-package-"));
  try {
    return work(scratch);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function template(name: string): string {
  return readFileSync(join(root, "packaging/debian", name), "utf8");
}

/** What a script has to know to refuse state that is newer than what it installs. */
function stateValues({ version }: Release): Readonly<Record<string, string>> {
  return { VERSION: version, STATE_SCHEMA: stateSchema.toString() };
}

function controlFiles(
  release: Release,
  architecture: Architecture,
  entries: readonly Entry[],
): readonly Entry[] {
  const control = filled(template("control"), {
    VERSION: debianVersion(release.version),
    ARCHITECTURE: architecture,
    MAINTAINER: release.maintainer,
    INSTALLED_SIZE: installedKiB(entries).toString(),
  });
  return [
    file("DEBIAN/control", control),
    file("DEBIAN/conffiles", conffiles.map((path) => `/${path}\n`).join("")),
    file("DEBIAN/md5sums", md5sums(entries)),
    file("DEBIAN/preinst", filled(template("preinst"), stateValues(release)), 0o755),
    ...["postinst", "prerm", "postrm"].map((name) => file(`DEBIAN/${name}`, template(name), 0o755)),
  ];
}

/** How packages are compressed: well, or for tests soon or not at all. */
export const compressions = {
  best: { deb: ["-Zxz"], gzip: 9 },
  fast: { deb: ["-Zxz", "-z0"], gzip: 1 },
  none: { deb: ["-Znone"], gzip: 0 },
} as const;
export type Compression = keyof typeof compressions;

/**
 * Makes the Debian package.
 *
 * @returns the name of its file.
 */
export function writeDeb(
  outdir: string,
  release: Release,
  architecture: Architecture,
  entries: readonly Entry[],
  compression: Compression,
): string {
  const name = `remora_${debianVersion(release.version)}_${architecture}.deb`;
  mkdirSync(outdir, { recursive: true });
  inScratch((scratch) => {
    const tree = [...controlFiles(release, architecture, entries), ...entries];
    writeTree(join(scratch, "tree"), tree, release.epochSeconds);
    const options = ["--root-owner-group", ...compressions[compression].deb];
    execFileSync("dpkg-deb", [...options, "--build", join(scratch, "tree"), join(outdir, name)], {
      env: { ...process.env, SOURCE_DATE_EPOCH: `${release.epochSeconds}`, LC_ALL: "C" },
      stdio: ["ignore", "ignore", "inherit"],
    });
  });
  return name;
}

/** Where an archive has what Debian has elsewhere; undefined: it is of no use without dpkg. */
export function placeInArchive(path: string): string | undefined {
  if (path.startsWith("usr/share/lintian/") || path.endsWith("/changelog.gz")) return undefined;
  if (path === "usr/share/zsh/vendor-completions/_remora")
    return "share/zsh/site-functions/_remora";
  return path.replace(/^usr\//, "").replace(/^lib\/systemd\/system\//, "systemd/");
}

/**
 * Makes the archive for machines without dpkg: one directory that runs where it lies, and install.sh.
 *
 * @returns the name of its file.
 */
export function writeTarball(
  outdir: string,
  release: Release,
  architecture: Architecture,
  entries: readonly Entry[],
  compression: Compression,
): string {
  const { version, epochSeconds } = release;
  const directory = `remora-${version}-linux-${architecture}`;
  const name = `${directory}.tar.gz`;
  mkdirSync(outdir, { recursive: true });
  inScratch((scratch) => {
    const moved = entries.flatMap((entry) => {
      const path = placeInArchive(entry.path);
      return path === undefined ? [] : [{ ...entry, path }];
    });
    const installer = readFileSync(join(root, "packaging/install.sh"), "utf8");
    const own = [
      file("LICENSE", readFileSync(join(root, "LICENSE"))),
      file("install.sh", filled(installer, stateValues(release)), 0o755),
    ];
    writeTree(join(scratch, directory), [...moved, ...own], epochSeconds);
    const options = ["--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"];
    const argv = [...options, `--mtime=@${epochSeconds}`, "-cf", "-", "-C", scratch, directory];
    const archive = execFileSync("tar", argv, {
      env: { ...process.env, LC_ALL: "C" },
      maxBuffer: 1024 ** 3,
      stdio: ["ignore", "pipe", "inherit"],
    });
    writeFileSync(join(outdir, name), gzip(archive, compressions[compression].gzip));
  });
  return name;
}
