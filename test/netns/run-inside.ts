// Runs one test file and writes a line of JSON per test: what a namespace's inside tells its outside.
import { run } from "node:test";

/** One test that ended. */
export interface Report {
  readonly name: string;
  readonly skip?: string;
  /** Why it failed. */
  readonly failure?: string;
  readonly seconds?: number;
}

const [file = ""] = process.argv.slice(2);
if (file !== "") {
  // To run some of them only.
  const pattern = process.env["TEST_NAME_PATTERN"];
  const stream = run({
    files: [file],
    timeout: 20 * 60_000,
    ...(pattern === undefined ? {} : { testNamePatterns: [new RegExp(pattern)] }),
  });
  const say = (report: Report): void => {
    process.stdout.write(`${JSON.stringify(report)}\n`);
  };
  stream.on("test:pass", ({ name, skip, details }) => {
    if (details.type === "suite") return;
    if (skip === undefined || skip === false) say({ name, seconds: details.duration_ms / 1000 });
    else say({ name, skip: String(skip) });
  });
  stream.on("test:fail", ({ name, details }) => {
    // A suite fails with its tests, which told why; with its hooks only, it is the one to tell.
    const { error } = details;
    const kind = "failureType" in error ? String(error.failureType) : "";
    if (details.type === "suite" && kind === "subtestsFailed") return;
    const cause = error.cause instanceof Error ? error.cause : error;
    say({ name, failure: `${kind}: ${cause.stack ?? cause.message}` });
  });
  stream.on("test:stderr", ({ message }) => process.stderr.write(message));
  stream.on("test:stdout", ({ message }) => process.stderr.write(message));
  stream.resume();
}
