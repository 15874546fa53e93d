import { access } from "node:fs/promises";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";

import type { Clock } from "../../lib/clock.ts";
import { errorMessage, SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { Runner } from "../supervise.ts";
import { type DemoReport, runDemo, succeeded } from "./demo.ts";
import { createScreen, screenOptions } from "./screen.ts";

export interface DemoRunnerOptions {
  readonly dockerSocket: string;
  readonly kubeconfig: string;
  /** End when the demo has ended. */
  readonly exit: boolean;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Aborts when the user wants an end. */
  readonly signal: AbortSignal;
}

/** The demo beside the node that it runs on: it begins when the node is ready, and the node outlives its clean-up. */
export interface DemoRunner extends Runner {
  /** Ends everything: aborts behind the demo's clean-up, when the user or `exit` wants an end. */
  readonly stop: AbortSignal;
  /** To be called once the node is ready. @param kubectl The words with which the user calls kubectl. */
  begin(kubectl: string): void;
  /**
   * With `exit`, when all has ended: says the figures as one line of JSON.
   *
   * @throws {SetupError} when the demo ended early or did not show what it should.
   */
  conclude(say: (line: string) => void): void;
}

/** Programs see what they need of our environment, not all of it. */
const passedOn = [
  "PATH",
  "TMPDIR",
  "BUSYBOX",
  "http_proxy",
  "https_proxy",
  "no_proxy",
  "HTTP_PROXY",
  "HTTPS_PROXY",
  "NO_PROXY",
];

function childEnv(): Record<string, string> {
  return Object.fromEntries(
    passedOn.flatMap((name) => {
      const value = process.env[name];
      return value === undefined ? [] : [[name, value] as const];
    }),
  );
}

/** The directory of the examples: beside the installed bundle, beside the checkout's one, or beside the sources. */
async function findExamples(): Promise<string> {
  for (const candidate of ["examples", "../examples", "../../../examples"]) {
    const path = fileURLToPath(new URL(candidate, import.meta.url));
    try {
      await access(`${path}/shop.yaml`);
      return path;
    } catch {
      // Try the next one.
    }
  }
  throw new SetupError("examples/shop.yaml is not installed here; the demo needs it");
}

/** How to name a directory to the user: as seen from where they are, if that is shorter. */
function shown(path: string): string {
  const near = relative(process.cwd(), path);
  return near.startsWith("..") || near === "" ? path : near;
}

const nextSteps = (kubectl: string, examples: string): readonly string[] => [
  "What to try next:",
  `  sh ${examples}/busybox.sh ${examples}/shop/busybox`,
  `  docker build --build-arg VERSION=v1 -t remora-shop:v1 ${examples}/shop`,
  `  ${kubectl} create -f ${examples}/shop.yaml`,
  `  ${kubectl} get deployments,pods,services -l app=shop`,
  `  ${kubectl} exec deployment/frontend -- wget -qO- http://backend-service`,
  `  ${kubectl} rollout history deployment/backend`,
  "  docs/docker-to-kubectl.md: what you know from docker, in kubectl's words",
];

/** A demo that waits for its beginning. */
export function createDemoRunner(options: DemoRunnerOptions): DemoRunner {
  const { signal } = options;
  const stop = new AbortController();
  const screen = createScreen(screenOptions(process.stdout, process.env));
  const ready = Promise.withResolvers<string>();
  let report: DemoReport | undefined;
  let failure: string | undefined;

  const aborted = (either: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      if (either.aborted) resolve();
      else either.addEventListener("abort", () => resolve(), { once: true });
    });

  const play = async (kubectl: string, gone: AbortSignal): Promise<void> => {
    try {
      const examples = await findExamples();
      const common = { ...options, examples, shownExamples: shown(examples), kubectl, screen };
      const wanted = AbortSignal.any([signal, gone]);
      report = await runDemo({ ...common, env: childEnv(), gone }, wanted);
      screen.line();
      for (const line of nextSteps(kubectl, common.shownExamples)) screen.line(line);
    } catch (error) {
      failure = signal.aborted ? "it was stopped" : errorMessage(error);
      screen.line();
      screen.line(`The demo ended early: ${failure}`);
    }
  };

  return {
    name: "demo",
    stop: stop.signal,
    begin: ready.resolve,
    run: async (gone) => {
      const either = AbortSignal.any([signal, gone]);
      const kubectl = await Promise.race([ready.promise, aborted(either)]);
      if (kubectl !== undefined && !either.aborted) {
        await play(kubectl, gone);
        if (!options.exit) await aborted(either);
      }
      stop.abort(new DOMException("the demo is over", "AbortError"));
      // Whoever supervises us takes an end that nobody asked for as a failure; wait for the word.
      await aborted(gone);
    },
    conclude: (say) => {
      if (!options.exit) return;
      if (report === undefined)
        throw new SetupError(`the demo failed: ${failure ?? "it was stopped"}`);
      say(JSON.stringify(report));
      if (!succeeded(report))
        throw new SetupError("the demo did not show what it should; see above");
    },
  };
}
