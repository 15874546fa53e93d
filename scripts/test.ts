// Runs test levels: scripts/test.ts unit component docker netns e2e vm, or folders of them: component/config. Quiet on
// success; the last line counts.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { globSync } from "node:fs";
import { availableParallelism } from "node:os";
import { text } from "node:stream/consumers";
import { run } from "node:test";
import { fileURLToPath } from "node:url";

const all = ["unit", "component", "docker", "netns", "e2e", "vm"];
const wanted = process.argv.slice(2).filter((argument) => !argument.startsWith("-"));
const levelOf = (name: string): string => name.replace(/\/.*/, "");
const unknown = wanted.filter((name) => !all.includes(levelOf(name)));
if (unknown.length > 0 || wanted.length === 0) {
  process.stderr.write(`test: unknown level ${unknown.join(", ")}; levels: ${all.join(", ")}\n`);
  process.exit(2);
}

interface Tally {
  passed: number;
  failed: number;
  skipped: number;
}

/**
 * Unit tests share one process, and component tests of one folder: twelve times faster than one for each file, and the
 * heap of all component tests together would make each of them five times slower. The other levels get one process a
 * file, in turn.
 */
async function runFiles(name: string, tally: Tally): Promise<void> {
  const files = globSync(`test/${name}/**/*.test.ts`).toSorted();
  if (files.length === 0) return;
  const shared = ["unit", "component"].includes(levelOf(name));
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

/** Runs a folder in a process of its own, which is ended when it hangs. */
async function runApart(name: string, tally: Tally): Promise<void> {
  const script = fileURLToPath(import.meta.url);
  const child = spawn(process.execPath, [...process.execArgv, script, name], {
    stdio: ["ignore", "pipe", "inherit"],
    timeout: 10 * 60_000,
  });
  const [output] = await Promise.all([text(child.stdout), once(child, "close")]);
  const count = /(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\n$/.exec(output);
  process.stdout.write(
    count === null ? `FAIL ${name}: no count\n${output}` : output.slice(0, count.index),
  );
  const [, passed = "0", failed = "1", skipped = "0"] = count ?? [];
  tally.passed += Number(passed);
  tally.failed += Number(failed);
  tally.skipped += Number(skipped);
}

/** As many folders at a time as there are processors, those with the most files first. */
async function runFolders(level: string, tally: Tally): Promise<void> {
  const sizes = new Map<string, number>();
  for (const file of globSync(`test/${level}/*/**/*.test.ts`)) {
    const [, , folder = ""] = file.split("/");
    sizes.set(folder, (sizes.get(folder) ?? 0) + 1);
  }
  const folders = [...sizes].toSorted(([, a], [, b]) => b - a).map(([folder]) => folder);
  const next = async (): Promise<void> => {
    for (let folder = folders.shift(); folder !== undefined; folder = folders.shift()) {
      await runApart(`${level}/${folder}`, tally);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, next));
}

const tally: Tally = { passed: 0, failed: 0, skipped: 0 };
const order = (name: string): number => all.indexOf(levelOf(name));
for (const name of wanted.toSorted((a, b) => order(a) - order(b))) {
  // Node runs tests in its own process once only.
  const apart = wanted.length > 1 && /^(unit|component)\//.test(name);
  if (name === "component") await runFolders(name, tally);
  else await (apart ? runApart(name, tally) : runFiles(name, tally));
}
const skipped = tally.skipped > 0 ? `, ${tally.skipped} skipped` : "";
process.stdout.write(`${tally.passed} passed, ${tally.failed} failed${skipped}\n`);
process.exit(tally.failed > 0 || tally.passed === 0 ? 1 : 0);
