import { lstatSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { constants, gzipSync } from "node:zlib";

import { allCommands, commandTree } from "../../src/agent/completion/command-tree.ts";
import { completionScript } from "../../src/agent/completion/completion-script.ts";
import { shells } from "../../src/agent/completion/shells.ts";
import { remoraProgram } from "../../src/agent/cli/program.ts";
import { configurationFlags } from "../../src/config/configuration.ts";
import { type Bundle, root } from "./bundle.ts";
import { copyrightText, packagesOf, readLibraries } from "./copyright.ts";
import { changelogText } from "./debian.ts";
import { commandPage, flagsPage } from "./manual.ts";
import type { NodeRuntime } from "./node-binary.ts";
import { type Entry, file, type FileEntry } from "./tree.ts";

/** What a package is made of, apart from the sources. */
export interface Release {
  readonly version: string;
  /** "Name <address>" of whoever answers for the package. */
  readonly maintainer: string;
  /** The time that everything in it has: seconds since 1970. */
  readonly epochSeconds: number;
}

/** As gzip -n writes it: no name and no time in it. */
export function gzip(
  content: Buffer | string,
  level: number = constants.Z_BEST_COMPRESSION,
): Buffer {
  return gzipSync(content, { level });
}

function source(path: string): Buffer {
  return readFileSync(join(root, path));
}

/** Files below a directory of the checkout, relative to it, in order. */
function filesBelow(directory: string): readonly string[] {
  return readdirSync(join(root, directory), { recursive: true, encoding: "utf8" })
    .filter((path) => lstatSync(join(root, directory, path)).isFile())
    .toSorted();
}

/** Files of the examples, without what busybox.sh leaves in them. */
function examples(): readonly string[] {
  return filesBelow("examples").filter((path) => !/^\.|^[^/]+\/busybox\//.test(path));
}

function copied(from: string, to: string): FileEntry {
  const executable = (statSync(join(root, from)).mode & 0o100) !== 0;
  return file(to, source(from), executable ? 0o755 : 0o644);
}

function manualPages({ version, epochSeconds }: Release): readonly Entry[] {
  const date = new Date(epochSeconds * 1000).toISOString().slice(0, 10);
  const tree = commandTree(remoraProgram());
  const pages = [tree, ...tree.commands].map((command) => ({
    name: `man1/${command.path.join("-")}.1`,
    text: commandPage(command, allCommands(command), { version, date }),
  }));
  const flags = flagsPage(configurationFlags(), { version, date });
  return [...pages, { name: "man7/remora-flags.7", text: flags }].map(({ name, text }) =>
    file(`usr/share/man/${name}.gz`, gzip(text)),
  );
}

/** Where the shells look for completions. */
const completionFiles = {
  bash: "usr/share/bash-completion/completions/remora",
  zsh: "usr/share/zsh/vendor-completions/_remora",
  fish: "usr/share/fish/vendor_completions.d/remora.fish",
} as const;

function documents(release: Release, node: NodeRuntime, bundle: Bundle): readonly Entry[] {
  const doc = "usr/share/doc/remora";
  const libraries = readLibraries(root, packagesOf(bundle.inputs));
  return [
    file(`${doc}/copyright`, copyrightText(node.version, node.license, libraries)),
    file(
      `${doc}/changelog.gz`,
      gzip(changelogText(release.version, release.maintainer, release.epochSeconds)),
    ),
    file(`${doc}/CHANGELOG.md.gz`, gzip(source("CHANGELOG.md"))),
    copied("README.md", `${doc}/README.md`),
    ...filesBelow("docs").map((path) => copied(`docs/${path}`, `${doc}/docs/${path}`)),
    file("usr/share/lintian/overrides/remora", source("packaging/debian/lintian-overrides")),
    { path: `${doc}/examples`, target: "../../../lib/remora/examples" },
  ];
}

/** Files that an administrator changes: what they wrote stays through upgrades. */
export const conffiles = ["etc/default/remora", "etc/remora/config.yaml", "etc/remora/remora.env"];

/**
 * Everything that is installed on a machine of the runtime's architecture, where Debian has it.
 *
 * @param bundled Directory that `bundle` lies in.
 */
export function productEntries(
  release: Release,
  node: NodeRuntime,
  bundle: Bundle,
  bundled: string,
): readonly Entry[] {
  return [
    file("usr/bin/remora", source("packaging/remora"), 0o755),
    file("usr/lib/remora/bin/node", node.program, 0o755),
    ...[...bundle.files.keys()].map((name) =>
      file(`usr/lib/remora/${name}`, readFileSync(join(bundled, name))),
    ),
    ...examples().map((path) => copied(`examples/${path}`, `usr/lib/remora/examples/${path}`)),
    ...filesBelow("systemd").map((path) =>
      /\.(service|socket)$/.test(path)
        ? file(`lib/systemd/system/${path}`, source(`systemd/${path}`))
        : copied(`systemd/${path}`, `usr/lib/remora/${path}`),
    ),
    file("etc/default/remora", source("packaging/etc/default-remora")),
    file("etc/remora/config.yaml", source("packaging/etc/config.yaml")),
    file("etc/remora/remora.env", source("packaging/etc/remora.env")),
    ...shells.map((shell) =>
      file(completionFiles[shell], completionScript(shell, commandTree(remoraProgram()))),
    ),
    ...manualPages(release),
    ...documents(release, node, bundle),
  ];
}
