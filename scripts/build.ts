// npm run build [-- --outdir DIR]: remora.cjs (agent and command line), control-plane-worker.cjs, dns-worker.cjs,
// hardware-child.cjs, ownership-child.cjs, removal-child.cjs and grpc.cjs, in dist/ unless told otherwise.
import { readFile, rm } from "node:fs/promises";
import { build, type Plugin } from "esbuild";

/** Tables as text for JSON.parse: as object literals they would be in memory twice, 2 MB more for the API's schema. */
const parsedJson: Plugin = {
  name: "parsed-json",
  setup(bundler) {
    bundler.onLoad({ filter: /\.json$/ }, async ({ path }) => {
      const compact = JSON.stringify(JSON.parse(await readFile(path, "utf8")));
      return { contents: `module.exports = JSON.parse(${JSON.stringify(compact)});`, loader: "js" };
    });
  },
};

/** A file of its own: the text of what most nodes never load would cost each of them a megabyte. */
const lazyGrpc: Plugin = {
  name: "lazy-grpc",
  setup(bundler) {
    bundler.onResolve({ filter: /^@grpc\/grpc-js$/ }, ({ kind }) =>
      kind === "dynamic-import" ? { path: "./grpc.cjs", external: true } : undefined,
    );
  },
};

const at = process.argv.indexOf("--outdir");
const outdir = at < 0 ? "dist" : (process.argv[at + 1] ?? "dist");
await rm(outdir, { recursive: true, force: true });
const result = await build({
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
  plugins: [parsedJson, lazyGrpc],
  // CommonJS has no import.meta.
  define: { "import.meta.url": "moduleUrl" },
  banner: { js: 'const moduleUrl = require("node:url").pathToFileURL(__filename).href;' },
  logLevel: "warning",
  metafile: true,
});
for (const [file, { bytes }] of Object.entries(result.metafile.outputs)) {
  process.stdout.write(`${file} ${(bytes / 1024).toFixed(0)} KiB\n`);
}
