import { within } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import type { Machine } from "../doctor/machine.ts";
import type { DoctorReport } from "../doctor/report.ts";
import { reportLines } from "../doctor/report.ts";
import type { BundleFile } from "./archive.ts";
import { knownSecrets } from "./known-secrets.ts";
import { createRedactor } from "./redact.ts";
import type { Source } from "./sources.ts";

const patienceMs = 10_000;
const atOnce = 4;
/** Longer files lose an end. */
const mostChars = 8 * 1024 * 1024;

/** What came of a source. */
interface Collected {
  readonly source: Source;
  readonly text: string | undefined;
  /** Why there is none; empty where there is. */
  readonly missing: string;
}

function cut(text: string, keep: Source["keep"]): string {
  if (text.length <= mostChars) return text;
  const note = `# ${text.length - mostChars} characters are left out here\n`;
  return keep === "tail"
    ? `${note}${text.slice(-mostChars)}`
    : `${text.slice(0, mostChars)}\n${note}`;
}

async function collectOne(
  source: Source,
  machine: Machine,
  found: (secrets: readonly string[]) => void,
  signal: AbortSignal,
): Promise<Collected> {
  try {
    const text = await within(signal, patienceMs, async (limited) => {
      // What does not hear signals, such as a hung mount, must not hold up the rest.
      const { promise, reject } = Promise.withResolvers<never>();
      limited.addEventListener("abort", () => reject(new DOMException("", "AbortError")), {
        once: true,
      });
      return Promise.race([source.collect(machine, limited, found), promise]);
    });
    return { source, text, missing: text === undefined ? "there is none on this machine" : "" };
  } catch (error) {
    signal.throwIfAborted();
    const missing = isAbort(error)
      ? `no answer within ${patienceMs / 1000} s`
      : errorMessage(error);
    return { source, text: undefined, missing };
  }
}

function contents(all: readonly Collected[]): string {
  const lines = all.map(({ missing, source, text }) =>
    text === undefined
      ? `${source.name.padEnd(26)} left out: ${missing}`
      : `${source.name.padEnd(26)} ${source.what}`,
  );
  return [
    "What remora support-bundle found on this machine. Values that are secret were taken out: known credentials wherever",
    "they stood, values under names such as token or password, private keys, environments, commands and annotations of",
    "pods. Names of pods, images, hosts and addresses are in it: read it before you give it to somebody.",
    "",
    `${"doctor.txt".padEnd(26)} what remora doctor --all says`,
    `${"doctor.json".padEnd(26)} the same for programs`,
    ...lines,
    "",
  ].join("\n");
}

/**
 * Collects all sources, some at once, each with a deadline of its own, and takes secrets out of everything that was found
 * only when all of them are known.
 *
 * @throws the reason of `signal` alone.
 */
export async function collectBundle(
  sources: readonly Source[],
  machine: Machine,
  report: DoctorReport,
  signal: AbortSignal,
): Promise<readonly BundleFile[]> {
  const secrets = new Set(await knownSecrets(machine));
  const found = (values: readonly string[]): void => {
    for (const value of values) secrets.add(value);
  };
  const collected = new Map<Source, Collected>();
  const waiting = [...sources];
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      collected.set(next, await collectOne(next, machine, found, signal));
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  const all = sources.flatMap((source) => collected.get(source) ?? []);
  const redact = createRedactor(secrets);
  const guess = { guess: true };
  return [
    { name: "README.txt", text: redact(contents(all), guess) },
    { name: "doctor.txt", text: redact(`${reportLines(report, true).join("\n")}\n`, guess) },
    { name: "doctor.json", text: redact(`${JSON.stringify(report, undefined, 2)}\n`, guess) },
    ...all.flatMap(({ source, text }) =>
      text === undefined
        ? []
        : [{ name: source.name, text: cut(redact(text, source), source.keep) }],
    ),
  ];
}
