// npm run package [-- --outdir DIR --arch all|amd64|arm64 --version X.Y.Z --only both|deb|tarball]: what is installed on
// machines, in dist/package: a Debian package and an archive for each architecture, and SHA256SUMS. The same sources give
// the same bytes: SOURCE_DATE_EPOCH, or else the time of the last commit, is the time of everything in them. For tests,
// --compression fast|none takes seconds where the best takes half a minute.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";

import packageJson from "../package.json" with { type: "json" };
import { errorMessage } from "../src/lib/errors.ts";
import { type Compression, compressions, writeDeb, writeTarball } from "./package/archive.ts";
import { type Bundle, bundle, root } from "./package/bundle.ts";
import {
  architectures,
  type Architecture,
  nodeRuntime,
  type NodeRuntime,
} from "./package/node-binary.ts";
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
    only: { type: "string", default: "both" },
    compression: { type: "string", default: "best" },
  },
});

function chosen<T extends string>(flag: "arch" | "only" | "compression", from: readonly T[]): T {
  const found = from.find((each) => each === values[flag]);
  return found ?? die(`--${flag} ${values[flag]}: there are ${from.join(", ")}`);
}

const arch = chosen("arch", ["all", ...architectures]);
const only = chosen("only", ["both", "deb", "tarball"]);
const compression = chosen("compression", Object.keys(compressions) as Compression[]);
const outdir = resolve(values.outdir);
const release: Release = {
  version: values.version,
  maintainer: process.env["REMORA_MAINTAINER"] ?? packageJson.author,
  epochSeconds: epochSeconds(),
};

interface Target {
  readonly architecture: Architecture;
  readonly node: NodeRuntime;
}

function targets(): readonly Target[] {
  return architectures
    .filter((each) => arch === "all" || arch === each)
    .flatMap((architecture) => {
      try {
        return [{ architecture, node: nodeRuntime(architecture) }];
      } catch (error) {
        // Whoever asked for all gets what can be had here.
        if (arch !== "all" || architecture === "amd64") throw error;
        process.stderr.write(`package: nothing for ${architecture}: ${errorMessage(error)}\n`);
        return [];
      }
    });
}

function packageFor({ architecture, node }: Target, made: Bundle, bundled: string): string[] {
  const entries = productEntries(release, node, made, bundled);
  const files: string[] = [];
  if (only !== "tarball") {
    files.push(writeDeb(outdir, release, architecture, entries, compression));
  }
  if (only !== "deb") {
    files.push(writeTarball(outdir, release, architecture, entries, compression));
  }
  return files;
}

/** @returns the names of all files, in `outdir`. */
async function packageAll(): Promise<readonly string[]> {
  const all = targets();
  const bundled = mkdtempSync(join(tmpdir(), "remora-bundle-"));
  try {
    const made = await bundle(bundled, release.version);
    return all.flatMap((target) => packageFor(target, made, bundled));
  } finally {
    rmSync(bundled, { recursive: true, force: true });
  }
}

rmSync(outdir, { recursive: true, force: true });
mkdirSync(outdir, { recursive: true });
const files = await packageAll().catch((error: unknown) => die(errorMessage(error)));
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
