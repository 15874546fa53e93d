// npm run package [-- --outdir DIR --arch amd64|arm64|all --version X.Y.Z --only deb|tarball]: what is installed on
// machines, in dist/package: a Debian package and an archive for each architecture, and SHA256SUMS. The same sources give
// the same bytes: SOURCE_DATE_EPOCH, or else the time of the last commit, is the time of everything in them.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";

import packageJson from "../package.json" with { type: "json" };
import { errorMessage } from "../src/lib/errors.ts";
import { type Compression, writeDeb, writeTarball } from "./package/archive.ts";
import { type Bundle, bundle, root } from "./package/bundle.ts";
import { architectures, type Architecture, nodeRuntime } from "./package/node-binary.ts";
import { productEntries, type Release } from "./package/product.ts";

function die(text: string): never {
  process.stderr.write(`package: ${text}\n`);
  process.exit(1);
}

function epochSeconds(): number {
  const given = process.env["SOURCE_DATE_EPOCH"];
  if (given !== undefined) {
    if (!/^[0-9]+$/.test(given)) die(`SOURCE_DATE_EPOCH is ${given}: not a number of seconds`);
    return Number(given);
  }
  try {
    const argv = ["log", "-1", "--format=%ct"];
    return Number(execFileSync("git", argv, { cwd: root, stdio: ["ignore", "pipe", "ignore"] }));
  } catch {
    return die("this is no git checkout; set SOURCE_DATE_EPOCH to the time of the release");
  }
}

const { values } = parseArgs({
  options: {
    outdir: { type: "string", default: "dist/package" },
    arch: { type: "string", default: "all" },
    version: { type: "string", default: packageJson.version },
    only: { type: "string" },
    // For tests: an uncompressed .deb takes a second instead of half a minute.
    compression: { type: "string", default: "xz" },
  },
});
const wanted = architectures.filter((each) => values.arch === "all" || values.arch === each);
if (wanted.length === 0) die(`--arch ${values.arch}: there are ${architectures.join(", ")}, all`);
if (!["deb", "tarball", undefined].includes(values.only)) die("--only is deb or tarball");
if (!["xz", "none"].includes(values.compression)) die("--compression is xz or none");

const release: Release = {
  version: values.version,
  maintainer: process.env["REMORA_MAINTAINER"] ?? packageJson.author,
  epochSeconds: epochSeconds(),
};
const outdir = resolve(values.outdir);

function packageFor(architecture: Architecture, made: Bundle, bundled: string): readonly string[] {
  const entries = productEntries(release, nodeRuntime(architecture), made, bundled);
  const compression = values.compression as Compression;
  return [
    ...(values.only === "tarball"
      ? []
      : [writeDeb(outdir, release, architecture, entries, compression)]),
    ...(values.only === "deb" ? [] : [writeTarball(outdir, release, architecture, entries)]),
  ];
}

rmSync(outdir, { recursive: true, force: true });
mkdirSync(outdir, { recursive: true });
const bundled = mkdtempSync(join(tmpdir(), "remora-bundle-"));
const files: string[] = [];
try {
  const made = await bundle(bundled, release.version);
  for (const architecture of wanted) {
    try {
      files.push(...packageFor(architecture, made, bundled));
    } catch (error) {
      const text = `nothing for ${architecture}: ${errorMessage(error)}`;
      // Whoever asked for all gets what can be had here.
      if (values.arch !== "all" || architecture === "amd64") die(text);
      process.stderr.write(`package: ${text}\n`);
    }
  }
} finally {
  rmSync(bundled, { recursive: true, force: true });
}
const sums = files.toSorted().map((name) => {
  const digest = createHash("sha256")
    .update(readFileSync(join(outdir, name)))
    .digest("hex");
  return `${digest}  ${name}\n`;
});
writeFileSync(join(outdir, "SHA256SUMS"), sums.join(""));
for (const name of files) {
  const megabytes = (statSync(join(outdir, name)).size / 1e6).toFixed(1);
  process.stdout.write(`${join(values.outdir, name)} ${megabytes} MB\n`);
}
