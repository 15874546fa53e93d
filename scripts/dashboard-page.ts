import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { build, transform } from "esbuild";

const page = fileURLToPath(new URL("../src/agent/dashboard/page/", import.meta.url));

/** The file that `remora dashboard` reads its page from, beside remora.cjs. */
export const dashboardPage = "dashboard-page.json";

/**
 * Writes the page of `remora dashboard`: one JSON object of paths and texts, the program bundled, everything without white
 * space that nobody reads.
 *
 * @returns Its size in bytes.
 */
export async function bundleDashboardPage(outdir: string): Promise<number> {
  const {
    outputFiles: [program],
  } = await build({
    absWorkingDir: page,
    entryPoints: ["main.ts"],
    bundle: true,
    write: false,
    platform: "browser",
    format: "esm",
    target: "es2022",
    minify: true,
    legalComments: "none",
    logLevel: "warning",
  });
  const source = async (name: string): Promise<string> => readFile(join(page, name), "utf8");
  const { code: css } = await transform(await source("page.css"), { loader: "css", minify: true });
  const html = await source("page.html");
  const text = JSON.stringify({
    "/page.html": html.replaceAll(/\n\s*/g, "\n"),
    "/main.js": program?.text ?? "",
    "/page.css": css,
    "/icon.svg": await source("icon.svg"),
  });
  await writeFile(join(outdir, dashboardPage), text);
  return Buffer.byteLength(text);
}
