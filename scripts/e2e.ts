// npm run e2e -- LEVEL... [--machine qemu|vagrant]: tests of whole machines, e2e and vm, as bin/test runs them; the last line
// of stdout is one JSON object: what passed, failed and was skipped, how long it took, and figures of vm.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const levels = ["e2e", "vm"];
const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { machine: { type: "string", default: "qemu" } },
});
const wanted = positionals.length === 0 ? levels : positionals;
const unknown = wanted.filter((level) => !levels.includes(level));
if (unknown.length > 0 || !["qemu", "vagrant"].includes(values.machine)) {
  process.stderr.write(`e2e: levels: ${levels.join(", ")}; --machine qemu or vagrant\n`);
  process.exit(2);
}

const started = performance.now();
const scratch = mkdtempSync(join(tmpdir(), "remora-e2e-"));
const figures = join(scratch, "figures.json");
try {
  const program = fileURLToPath(new URL("../bin/test", import.meta.url));
  const child = spawn(program, wanted, {
    stdio: ["ignore", "pipe", "inherit"],
    env: {
      ...process.env,
      REMORA_TEST_MACHINE: values.machine,
      REMORA_TEST_FIGURES: figures,
    },
  });
  child.stdout.pipe(process.stdout, { end: false });
  const [output] = await Promise.all([text(child.stdout), once(child, "close")]);
  const count = /(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\n$/.exec(output);
  const [, passed, failed, skipped = "0"] = count ?? [];
  const result = {
    levels: wanted,
    passed: Number(passed ?? 0),
    failed: Number(failed ?? 1),
    skipped: Number(skipped),
    seconds: Math.round((performance.now() - started) / 1000),
    ...readFigures(),
  };
  process.stdout.write(`${JSON.stringify(result)}\n`);
  process.exitCode = child.exitCode ?? 1;
} finally {
  rmSync(scratch, { recursive: true });
}

/** There are none when no machine was started. */
function readFigures(): object {
  try {
    return { figures: JSON.parse(readFileSync(figures, "utf8")) as unknown };
  } catch {
    return {};
  }
}
