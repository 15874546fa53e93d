import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { createHttpClient } from "../../api/http-client.ts";
import { loadKubeconfig } from "../../api/kubeconfig.ts";
import { type Clock, deadline } from "../../lib/clock.ts";
import { errorMessage, SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { remoraVersion } from "../version.ts";
import { createApiTool } from "./api-tool.ts";
import { cleanUp, demoMark, findNamespace, type Leftovers } from "./clean-up.ts";
import type { ClusterTool } from "./cluster-tool.ts";
import { createDemoEngine } from "./engine.ts";
import { imageOf, versions } from "./images.ts";
import { createKubectlTool, kubectlVersion } from "./kubectl-tool.ts";
import type { Screen } from "./screen.ts";
import { Shop } from "./shop.ts";
import {
  build,
  create,
  kill,
  present,
  replace,
  rollBack,
  scale,
  share,
  type Stage,
  upgrade,
} from "./steps.ts";
import { Traffic } from "./traffic.ts";

/** What `--exit` prints as the last line of stdout. */
export interface DemoReport {
  /** Answers by pod while nothing but asking went on. */
  readonly requests: Readonly<Record<string, number>>;
  /** Requests without an answer then, while a pod was deleted and while the backend was scaled. */
  readonly failed: number;
  /** From `create` to the first answer by name. */
  readonly first_answer_s: number;
  /** From `docker kill` to the next answer of that backend. */
  readonly heal_s: number;
  /** Requests without an answer during upgrade and roll-back. */
  readonly rollout_failed: number;
  /** Objects, containers and images of the demo behind its clean-up. */
  readonly left_over: number;
}

export interface DemoOptions {
  /** The administrator's, as a user has it. */
  readonly kubeconfig: string;
  readonly dockerSocket: string;
  /** The directory that holds shop.yaml, and how to show a file in it. */
  readonly examples: string;
  readonly shownExamples: string;
  /** How the user calls kubectl: `kubectl`, or with a context. */
  readonly kubectl: string;
  readonly screen: Screen;
  /** Environment of programs that are started: PATH, proxies of the network. */
  readonly env: Readonly<Record<string, string>>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Aborts when the node itself is going: there is no point in cleaning up then. */
  readonly gone: AbortSignal;
}

const namespace = "shop-demo";
const cleanUpMs = 120_000;

function rounded(seconds: number): number {
  return Math.round(seconds * 100) / 100;
}

/** Whether a report is that of a demo that showed what it should. */
export function succeeded(report: DemoReport): boolean {
  return report.failed === 0 && report.rollout_failed === 0 && report.left_over === 0;
}

/** All but the clean-up. */
async function play(stage: Stage, signal: AbortSignal): Promise<Omit<DemoReport, "left_over">> {
  const { screen, clock } = stage;
  screen.heading("1. Build a small image in two versions");
  await build(stage, signal);

  screen.heading("2. Create the shop: a frontend, and three backends behind one name");
  const { session, firstAnswerSeconds } = await create(stage, signal);
  try {
    screen.verdict(true, `the first answer by name after ${firstAnswerSeconds.toFixed(1)} s`);
    await present(stage, signal);
    const traffic = new Traffic(session, clock);

    screen.heading("3. Requests from the frontend, by the Service's name");
    const shared = await share(stage, traffic, signal);

    screen.heading("4. Kill a backend behind the cluster's back, while requests go on");
    const healSeconds = await kill(stage, traffic, signal);

    screen.heading("5. Delete a backend: another one takes its place");
    let failed = shared.failed + (await replace(stage, traffic, signal));

    screen.heading("6. Scale to four copies and back");
    failed += await scale(stage, traffic, 4, signal);
    failed += await scale(stage, traffic, 3, signal);

    screen.heading("7. Upgrade to v2, while requests go on");
    let rolloutFailed = await upgrade(stage, traffic, signal);

    screen.heading("8. Roll back to v1");
    rolloutFailed += await rollBack(stage, traffic, signal);
    return {
      requests: Object.fromEntries(shared.perPod),
      failed,
      first_answer_s: rounded(firstAnswerSeconds),
      heal_s: rounded(healSeconds),
      rollout_failed: rolloutFailed,
    };
  } finally {
    await session.close();
  }
}

/** Removes everything and says so. Returns how much is left, or undefined when that cannot be known. */
async function clear(
  leftovers: Leftovers,
  screen: Screen,
  gone: AbortSignal,
): Promise<number | undefined> {
  const warn = (problem: string): void => screen.verdict(false, problem);
  try {
    const left = await cleanUp(leftovers, warn, deadline(gone, cleanUpMs));
    if (left.length === 0) screen.verdict(true, "nothing of the demo is left");
    else screen.verdict(false, `left: ${left.join(", ")}`);
    return left.length;
  } catch (error) {
    warn(`could not clean up: ${errorMessage(error)}`);
    return undefined;
  }
}

/** Takes away what a demo left that was killed; refuses to touch a namespace that no demo made. */
async function clearEarlier(
  leftovers: Leftovers,
  screen: Screen,
  signal: AbortSignal,
): Promise<void> {
  const found = await findNamespace(leftovers.client, namespace, signal);
  if (found === "foreign") {
    throw new SetupError(
      `there is a namespace ${namespace} that no demo made; delete it (kubectl delete namespace ${namespace}), then start the demo again`,
    );
  }
  if (found === "none") return;
  screen.heading("Removing what an earlier demo left that was cut short");
  await clear(leftovers, screen, signal);
}

async function chooseTool(
  options: DemoOptions,
  client: Leftovers["client"],
  cacheDir: string,
  signal: AbortSignal,
): Promise<ClusterTool> {
  const { kubeconfig, env, clock } = options;
  const version = await kubectlVersion(env, signal);
  if (version !== undefined) {
    return createKubectlTool(version, { kubeconfig, namespace, cacheDir, env });
  }
  const loaded = await loadKubeconfig(kubeconfig);
  return createApiTool({ client, kubeconfig: loaded, namespace, clock });
}

/**
 * Plays with examples/shop.yaml as a user could, and removes it again, however it went.
 *
 * @param signal Aborts when the user wants an end; the clean-up happens all the same.
 * @throws {SetupError} for a step that failed; what `signal` says when it was aborted. The clean-up is done then.
 */
export async function runDemo(options: DemoOptions, signal: AbortSignal): Promise<DemoReport> {
  const { screen, clock, logger, gone } = options;
  const client = createHttpClient({
    kubeconfig: await loadKubeconfig(options.kubeconfig),
    userAgent: `remora-demo/${remoraVersion}`,
    clock,
    logger,
  });
  const cacheDir = await mkdtemp(join(tmpdir(), "remora-demo-"));
  try {
    const tool = await chooseTool(options, client, cacheDir, signal);
    const engine = createDemoEngine(options.dockerSocket);
    const manifest = join(options.examples, "shop.yaml");
    const all = versions.map((version) => imageOf(version));
    const leftovers: Leftovers = { tool, client, engine, clock, namespace, manifest, images: all };
    screen.line();
    screen.line(`The shop: ${options.shownExamples}/shop.yaml, played by ${tool.name}.`);
    screen.line("Each command that you see you can type yourself.");
    await clearEarlier(leftovers, screen, signal);
    // Images of these names that the user built by hand stay.
    const images: string[] = [];
    for (const image of all) {
      if ((await engine.imageSize(image, signal)) === undefined) images.push(image);
    }
    const shop = new Shop({ client, namespace, clock, screen });
    const stage: Stage = { ...options, tool, engine, shop, namespace, manifest };
    let left: number | undefined;
    let report: Omit<DemoReport, "left_over">;
    try {
      screen.command(`${options.kubectl} create namespace ${namespace}`);
      await tool.createNamespace(demoMark, signal);
      report = await play(stage, signal);
    } catch (error) {
      screen.verdict(false, signal.aborted ? "stopped" : errorMessage(error));
      throw error;
    } finally {
      screen.heading("9. Clean up");
      screen.command(
        `${options.kubectl} -n ${namespace} delete -f ${options.shownExamples}/shop.yaml`,
      );
      screen.command(`${options.kubectl} delete namespace ${namespace}`);
      if (images.length > 0) screen.command(`docker rmi ${images.join(" ")}`);
      left = await clear({ ...leftovers, images }, screen, gone);
    }
    if (left === undefined) throw new SetupError("the clean-up of the demo could not be checked");
    return { ...report, left_over: left };
  } finally {
    await client.close();
    await rm(cacheDir, { recursive: true, force: true });
  }
}
