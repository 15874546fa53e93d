// npm run check: types, lint, format, unit tests. Everything that needs no root and no Docker.
import { spawnSync } from "node:child_process";

const sources = ["src", "test", "scripts"];
const steps: readonly (readonly [string, readonly string[]])[] = [
  ["types", ["node_modules/typescript/bin/tsc"]],
  ["types of the page", ["node_modules/typescript/bin/tsc", "-p", "src/agent/dashboard/page"]],
  ["lint", ["node_modules/oxlint/bin/oxlint", ...sources]],
  ["format", ["node_modules/oxfmt/bin/oxfmt", "--check", ...sources]],
  [
    "unit and component tests",
    ["--disable-warning=ExperimentalWarning", "scripts/test.ts", "unit", "component"],
  ],
];

let failed = false;
for (const [name, argv] of steps) {
  const started = performance.now();
  const result = spawnSync(process.execPath, argv, { encoding: "utf8" });
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const ok = result.status === 0;
  process.stdout.write(`${ok ? "ok  " : "FAIL"} ${name} (${seconds} s)\n`);
  if (!ok) {
    failed = true;
    process.stdout.write(result.stdout + result.stderr);
  }
}
process.exitCode = failed ? 1 : 0;
