// npm run build: dist/remora.cjs (agent and command line), dist/control-plane-worker.cjs, dist/hardware-child.cjs.
import { rm } from "node:fs/promises";
import { build } from "esbuild";

await rm("dist", { recursive: true, force: true });
const result = await build({
  entryPoints: {
    remora: "src/agent/main.ts",
    "control-plane-worker": "src/agent/control-plane-worker.ts",
    "hardware-child": "src/kubelet/node/hardware-child.ts",
  },
  outdir: "dist",
  outExtension: { ".js": ".cjs" },
  bundle: true,
  platform: "node",
  // CommonJS: importing node:http as ESM alone costs 15 MB of memory.
  format: "cjs",
  target: "node24",
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: "none",
  loader: { ".json": "json" },
  // CommonJS has no import.meta.
  define: { "import.meta.url": "moduleUrl" },
  banner: { js: 'const moduleUrl = require("node:url").pathToFileURL(__filename).href;' },
  logLevel: "warning",
  metafile: true,
});
for (const [file, { bytes }] of Object.entries(result.metafile.outputs)) {
  process.stdout.write(`${file} ${(bytes / 1024).toFixed(0)} KiB\n`);
}
