// npm run build [-- --outdir DIR]: the bundle that runs on machines (scripts/package/bundle.ts), in dist/ unless told
// otherwise.
import { resolve } from "node:path";
import { parseArgs } from "node:util";

import { bundle } from "./package/bundle.ts";

const { values } = parseArgs({
  options: { outdir: { type: "string", default: "dist" }, version: { type: "string" } },
});
const { files } = await bundle(resolve(values.outdir), values.version);
for (const [name, bytes] of files) {
  process.stdout.write(`${values.outdir}/${name} ${(bytes / 1024).toFixed(0)} KiB\n`);
}
