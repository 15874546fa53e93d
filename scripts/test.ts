// Runs test levels: scripts/test.ts unit component docker netns e2e vm. Quiet on success; the last line counts.
import { once } from "node:events";
import { globSync } from "node:fs";
import { run } from "node:test";

const all = ["unit", "component", "docker", "netns", "e2e", "vm"];
const levels = process.argv.slice(2).filter((argument) => !argument.startsWith("-"));
const unknown = levels.filter((level) => !all.includes(level));
if (unknown.length > 0 || levels.length === 0) {
  process.stderr.write(`test: unknown level ${unknown.join(", ")}; levels: ${all.join(", ")}\n`);
  process.exit(2);
}

interface Tally {
  passed: number;
  failed: number;
  skipped: number;
}

/** Unit and component tests share one process: no I/O, and twelve times faster. The others get one each, in turn. */
async function runLevel(level: string, tally: Tally): Promise<void> {
  const files = globSync(`test/${level}/**/*.test.ts`).toSorted();
  if (files.length === 0) return;
  const shared = level === "unit" || level === "component";
  const stream = run({
    files,
    isolation: shared ? "none" : "process",
    concurrency: shared,
    ...(shared ? {} : { timeout: 20 * 60_000 }),
  });
  stream.on("test:fail", ({ details, name, file }) => {
    if (details.type === "suite") return;
    tally.failed += 1;
    const { error } = details;
    const cause = error.cause instanceof Error ? error.cause : error;
    process.stdout.write(`FAIL ${file ?? ""}: ${name}\n${cause.stack ?? cause.message}\n`);
  });
  stream.on("test:pass", ({ details, name, file, skip }) => {
    if (details.type === "suite") return;
    if (skip === undefined || skip === false) {
      tally.passed += 1;
      return;
    }
    tally.skipped += 1;
    process.stdout.write(`skip ${file ?? ""}: ${name}: ${String(skip)}\n`);
  });
  stream.on("test:stderr", ({ message }) => {
    if (process.env["VERBOSE"] !== undefined) process.stderr.write(message);
  });
  stream.resume();
  await once(stream, "end");
}

const tally: Tally = { passed: 0, failed: 0, skipped: 0 };
for (const level of all) if (levels.includes(level)) await runLevel(level, tally);
const skipped = tally.skipped > 0 ? `, ${tally.skipped} skipped` : "";
process.stdout.write(`${tally.passed} passed, ${tally.failed} failed${skipped}\n`);
process.exit(tally.failed > 0 || tally.passed === 0 ? 1 : 0);
