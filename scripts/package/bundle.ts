import { readFile, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { build, type Plugin } from "esbuild";

import { bundleDashboardPage, dashboardPage } from "../dashboard-page.ts";

/** The root of the checkout, with a slash at its end. */
export const root = fileURLToPath(new URL("../../", import.meta.url));

/** Tables as text for JSON.parse: as object literals they would be in memory twice, 2 MB more for the API's schema. */
function parsedJson(version: string | undefined): Plugin {
  return {
    name: "parsed-json",
    setup(bundler) {
      bundler.onLoad({ filter: /\.json$/ }, async ({ path }) => {
        const value: unknown = JSON.parse(await readFile(path, "utf8"));
        const ours = version !== undefined && path === `${root}package.json`;
        const compact = JSON.stringify(ours ? Object.assign({}, value, { version }) : value);
        return {
          contents: `module.exports = JSON.parse(${JSON.stringify(compact)});`,
          loader: "js",
        };
      });
    },
  };
}

/** A file of its own: the text of what most nodes never load would cost each of them a megabyte. */
const lazyGrpc: Plugin = {
  name: "lazy-grpc",
  setup(bundler) {
    bundler.onResolve({ filter: /^@grpc\/grpc-js$/ }, ({ kind }) =>
      kind === "dynamic-import" ? { path: "./grpc.cjs", external: true } : undefined,
    );
  },
};

/** What was bundled. */
export interface Bundle {
  /** Names of the files in the output directory, with their sizes in bytes. */
  readonly files: ReadonlyMap<string, number>;
  /** Paths of everything that is in them, relative to the checkout. */
  readonly inputs: readonly string[];
}

/**
 * Makes remora.cjs (agent and command line), control-plane-worker.cjs, dns-worker.cjs, hardware-child.cjs,
 * ownership-child.cjs, removal-child.cjs, grpc.cjs and dashboard-page.json. The same sources give the same bytes,
 * wherever they lie.
 *
 * @param outdir Is removed first.
 * @param version What the result calls itself instead of the version in package.json.
 */
export async function bundle(outdir: string, version?: string): Promise<Bundle> {
  await rm(outdir, { recursive: true, force: true });
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: {
      remora: "src/agent/main.ts",
      "control-plane-worker": "src/agent/control-plane-worker.ts",
      "dns-worker": "src/agent/dns-worker.ts",
      "hardware-child": "src/kubelet/node/hardware-child.ts",
      "ownership-child": "src/kubelet/volumes/ownership-child.ts",
      grpc: "@grpc/grpc-js",
      "removal-child": "src/kubelet/volumes/removal-child.ts",
    },
    outdir,
    outExtension: { ".js": ".cjs" },
    bundle: true,
    platform: "node",
    // CommonJS: importing node:http as ESM alone costs 15 MB of memory.
    format: "cjs",
    target: "node24",
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: "none",
    plugins: [parsedJson(version), lazyGrpc],
    // CommonJS has no import.meta.
    define: { "import.meta.url": "moduleUrl" },
    banner: { js: 'const moduleUrl = require("node:url").pathToFileURL(__filename).href;' },
    logLevel: "warning",
    metafile: true,
  });
  const outputs = Object.entries(metafile.outputs).map(
    ([path, { bytes }]) => [path.slice(path.lastIndexOf("/") + 1), bytes] as const,
  );
  outputs.push([dashboardPage, await bundleDashboardPage(outdir)]);
  return { files: new Map(outputs), inputs: Object.keys(metafile.inputs).toSorted() };
}
