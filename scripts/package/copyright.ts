import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** A library that is part of the bundle. */
export interface Library {
  readonly name: string;
  readonly version: string;
  /** In SPDX's words, from its package.json. */
  readonly license: string;
  /** Text of its license file. */
  readonly text: string;
}

/** Where the packages that files of node_modules belong to are in there, in order: mostly at their names. */
export function packagesOf(inputs: readonly string[]): readonly string[] {
  const names = inputs.flatMap((path) => {
    // The innermost: a package may have another version of one for itself.
    const [, name] =
      /^node_modules\/((?:.*\/node_modules\/)?(?:@[^/]+\/)?[^/]+)\//.exec(path) ?? [];
    return name === undefined ? [] : [name];
  });
  return [...new Set(names)].toSorted();
}

interface PackageFacts {
  readonly name: string;
  readonly version: string;
  readonly license?: string;
  readonly author?: string | { readonly name: string };
}

/** The license of a package without a license file: the text that its package.json names. */
function namedLicense(root: string, { license, author }: PackageFacts): string | undefined {
  const path = join(root, "packaging/licenses", license ?? "");
  const name = typeof author === "object" ? author.name : author;
  if (license === undefined || name === undefined || !existsSync(path)) return undefined;
  return `Copyright (c) ${name}\n\n${readFileSync(path, "utf8")}`;
}

/**
 * Reads what is to be said about bundled packages.
 *
 * @throws {Error} when nothing says under which license one of them is: such a one may not be shipped.
 */
export function readLibraries(root: string, places: readonly string[]): readonly Library[] {
  return places.flatMap((name) => {
    const directory = join(root, "node_modules", name);
    const facts = JSON.parse(readFileSync(join(directory, "package.json"), "utf8")) as PackageFacts;
    // Stands in package.json's overrides for what nobody loads; there is nothing in it.
    if (facts.name === "empty-npm-package") return [];
    const file = readdirSync(directory).find((each) => /^(licen[cs]e|copying)/i.test(each));
    const text =
      file === undefined ? namedLicense(root, facts) : readFileSync(join(directory, file), "utf8");
    if (text === undefined || facts.license === undefined) {
      throw new Error(`${name} is bundled and does not say under which license`);
    }
    return [{ name, version: facts.version, license: facts.license, text }];
  });
}

/** A text as the value of a field: indented, and a dot for lines that are empty. */
function folded(text: string): string {
  const lines = text.replaceAll("\r", "").replaceAll("\t", "    ").trimEnd().split("\n");
  return lines.map((line) => (line.trim() === "" ? " ." : ` ${line.trimEnd()}`)).join("\n");
}

/** Lines of a license text that say whose it is. */
function holders(text: string): readonly string[] {
  const found = text.split("\n").flatMap((line) => {
    const [, holder] =
      /^\W*(?:Copyright|COPYRIGHT):?\s+(?:\([Cc]\)|©)?\s*((?:[0-9]{4}|[A-Z]).*\S)/.exec(line) ?? [];
    return holder === undefined || /^(owner|holder|notice|license)/i.test(holder) ? [] : [holder];
  });
  return [...new Set(found)];
}

const apacheReference = `Licensed under the Apache License, Version 2.0 (the "License"); you may not
use this file except in compliance with the License.

On Debian systems, the complete text of the Apache License 2.0 is in
/usr/share/common-licenses/Apache-2.0.`;

function stanza(fields: readonly (readonly [string, string])[]): string {
  return fields.map(([name, value]) => `${name}: ${value}`).join("\n");
}

function libraryStanza({ name, version, license, text }: Library): string {
  const whose = holders(text);
  const authors = whose.length === 0 ? [`the authors of ${name}`] : whose;
  const shared = license === "Apache-2.0";
  const label = shared
    ? license
    : `${license}-${name.replaceAll(/[^A-Za-z0-9.]+/g, "-").replace(/^-/, "")}`;
  return stanza([
    ["Files", `node_modules/${name}/*`],
    ["Copyright", authors.join("\n ")],
    ["License", shared ? label : `${label}\n${folded(text)}`],
    ["Comment", `${name} ${version}, part of the bundle in /usr/lib/remora`],
  ]);
}

/**
 * `copyright` of the package in Debian's machine-readable format 1.0: our own license, Node's and those of the bundled
 * libraries.
 *
 * @param nodeVersion The version of the Node that is shipped.
 * @param nodeLicense Its license file: what it says about its parts is part of it.
 */
export function copyrightText(
  nodeVersion: string,
  nodeLicense: string,
  libraries: readonly Library[],
): string {
  return `${[
    stanza([
      ["Format", "https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"],
      ["Upstream-Name", "remora"],
    ]),
    stanza([
      ["Files", "*"],
      ["Copyright", "the Remora authors"],
      ["License", "Apache-2.0"],
    ]),
    stanza([
      ["Files", "usr/lib/remora/bin/node"],
      ["Copyright", "Node.js contributors"],
      ["License", `Node.js\n${folded(nodeLicense)}`],
      ["Comment", `Node.js ${nodeVersion}, without its symbols`],
    ]),
    ...libraries.map((library) => libraryStanza(library)),
    stanza([["License", `Apache-2.0\n${folded(apacheReference)}`]]),
  ].join("\n\n")}\n`;
}
