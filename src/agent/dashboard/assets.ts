import { readdir, readFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { join, relative } from "node:path";

import { errorMessage, SetupError } from "../../lib/errors.ts";
import { asRecord, stringMap } from "../../lib/guard.ts";

/** One file of the page. */
export interface Asset {
  readonly type: string;
  readonly body: Buffer;
}

const types: Readonly<Record<string, string>> = {
  css: "text/css; charset=utf-8",
  html: "text/html; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  svg: "image/svg+xml",
  ts: "text/javascript; charset=utf-8",
};

function typeOf(path: string): string | undefined {
  return types[/\.(\w+)$/.exec(path)?.[1] ?? ""];
}

/** As `npm run build` writes it: one file, the texts by their paths. */
async function bundledTexts(file: URL): Promise<Readonly<Record<string, string>>> {
  return stringMap(asRecord(JSON.parse(await readFile(file, "utf8")), "page"));
}

/** The sources, module by module, with their types taken out. */
async function sourceTexts(directory: URL): Promise<Readonly<Record<string, string>>> {
  const texts: Record<string, string> = {};
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile() || typeOf(path) === undefined) continue;
    const text = await readFile(path, "utf8");
    texts[`/${relative(directory.pathname, path)}`] = path.endsWith(".ts")
      ? stripTypeScriptTypes(text)
      : text;
  }
  const { "/main.ts": program, ...others } = texts;
  return { ...others, ...(program === undefined ? {} : { "/main.js": program }) };
}

/**
 * Reads the page, by path: the one that was bundled with the artefact, or the sources of a checkout.
 *
 * @throws {SetupError} when it is not there.
 */
export async function readAssets(): Promise<ReadonlyMap<string, Asset>> {
  const fromSource = import.meta.url.endsWith(".ts");
  const place = new URL(fromSource ? "page/" : "dashboard-page.json", import.meta.url);
  const missing = (why: string, cause?: unknown): SetupError =>
    new SetupError(
      `the page of the dashboard is not in ${place.pathname} (${why}): install Remora again`,
      {
        cause,
      },
    );
  let texts: Readonly<Record<string, string>>;
  try {
    texts = await (fromSource ? sourceTexts(place) : bundledTexts(place));
  } catch (error) {
    throw missing(errorMessage(error), error);
  }
  const { "/page.html": page, "/main.js": program } = texts;
  if (page === undefined || program === undefined) throw missing("it is not complete");
  return new Map(
    Object.entries({ ...texts, "/": page }).map(([path, text]) => [
      path,
      { type: typeOf(path === "/" ? "/page.html" : path) ?? "", body: Buffer.from(text) },
    ]),
  );
}
