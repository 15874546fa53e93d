import type { Clock } from "../../lib/clock.ts";
import { SetupError } from "../../lib/errors.ts";
import type { ClusterTool, LineSession } from "./cluster-tool.ts";
import type { DemoEngine } from "./engine.ts";
import { buildImages, imageOf, type Version, versions } from "./images.ts";
import { drawBars, drawService } from "./picture.ts";
import { isReady } from "./pod-words.ts";
import type { Screen } from "./screen.ts";
import { names, type Shop } from "./shop.ts";
import { type Answer, neglected, Tally } from "./tally.ts";
import type { Traffic } from "./traffic.ts";

/** What the steps work with. */
export interface Stage {
  readonly tool: ClusterTool;
  readonly shop: Shop;
  readonly engine: DemoEngine;
  readonly screen: Screen;
  readonly clock: Clock;
  readonly namespace: string;
  /** The directory of shop.yaml, and how to show a file of it. */
  readonly examples: string;
  readonly shownExamples: string;
  readonly manifest: string;
  /** The words with which the user reaches the cluster: `kubectl --context remora`. */
  readonly kubectl: string;
  /** PATH and the like of programs that are started. */
  readonly env: Readonly<Record<string, string>>;
}

/** Requests of {@link share}. */
export const shareCount = 240;
const readyMs = 120_000;
const rolloutMs = 180_000;
const answerMs = 60_000;

function stopwatch(clock: Clock): () => number {
  const started = clock.monotonic();
  return () => (clock.monotonic() - started) / 1000;
}

function command({ screen, kubectl, namespace }: Stage, text: string): void {
  screen.command(`${kubectl} -n ${namespace} ${text}`);
}

/** Shows how the requests go on below what the pods do; not for each of them, which no eye could follow. */
function counter(screen: Screen): (answer: Answer, tally: Tally) => void {
  return (_answer, tally) => {
    const sent = tally.answered + tally.failed;
    if (sent % 5 === 0) {
      screen.note([`    ${sent} requests, ${tally.failed} failed (${tally.describeVersions()})`]);
    }
  };
}

function because(tally: Tally): string {
  return tally.failed === 0 ? "" : ` (${tally.reasons.slice(0, 3).join("; ")})`;
}

/** Builds the image in two versions. */
export async function build(stage: Stage, signal: AbortSignal): Promise<void> {
  const { engine, screen, examples, shownExamples, clock, env } = stage;
  const elapsed = stopwatch(clock);
  const context = `${shownExamples}/shop`;
  screen.command(`sh ${shownExamples}/busybox.sh ${context}/busybox`);
  for (const version of versions) {
    screen.command(`docker build --build-arg VERSION=${version} -t ${imageOf(version)} ${context}`);
  }
  await buildImages({ engine, examples, env }, signal);
  const bytes = (await engine.imageSize(imageOf("v1"), signal)) ?? 0;
  const megabytes = (bytes / 1e6).toFixed(1);
  const all = versions.map((version) => imageOf(version)).join(" and ");
  screen.verdict(true, `${all}, ${megabytes} MB each (${elapsed().toFixed(1)} s)`);
}

/** Creates the shop. Returns a session in the frontend, and the seconds from `create` to its first answer. */
export async function create(
  stage: Stage,
  signal: AbortSignal,
): Promise<{ readonly session: LineSession; readonly firstAnswerSeconds: number }> {
  const { tool, shop, clock } = stage;
  command(stage, `create -f ${stage.shownExamples}/shop.yaml`);
  const elapsed = stopwatch(clock);
  await tool.create(stage.manifest, signal);
  let frontend = "";
  await shop.until(
    "a ready frontend",
    (pods) => {
      const ready = pods.find((pod) => {
        return pod.metadata.labels?.["tier"] === names.frontend && isReady(pod);
      });
      frontend = ready?.metadata.name ?? "";
      return ready !== undefined;
    },
    readyMs,
    signal,
  );
  const session = await tool.openSession(frontend, ["ask"], signal);
  return { session, firstAnswerSeconds: await firstAnswer(stage, session, elapsed, signal) };
}

async function firstAnswer(
  { shop }: Stage,
  session: LineSession,
  elapsed: () => number,
  signal: AbortSignal,
): Promise<number> {
  let answer = "nothing was asked";
  let seconds = 0;
  try {
    await shop.until(
      `an answer from http://${names.service}`,
      async (_pods, inner) => {
        answer = await session.exchange("", inner);
        seconds = elapsed();
        return answer.startsWith("hello from ");
      },
      answerMs,
      signal,
    );
  } catch (error) {
    await session.close();
    signal.throwIfAborted();
    if (error instanceof SetupError) {
      throw new SetupError(`${error.message}; the last was: ${answer}`, { cause: error });
    }
    throw error;
  }
  return seconds;
}

/** Waits for all copies, then draws who leads where. */
export async function present(stage: Stage, signal: AbortSignal): Promise<void> {
  const { shop, screen } = stage;
  await shop.settled(names.frontend, readyMs, signal);
  await shop.settled(names.backend, readyMs, signal);
  const [client] = await shop.pods(signal, names.frontend);
  const endpoints = await shop.endpoints(signal);
  screen.verdict(true, `1 frontend and ${endpoints.length} backends are ready`);
  screen.line();
  const picture = {
    client: client?.metadata.name ?? names.frontend,
    service: names.service,
    address: await shop.serviceAddress(signal),
    endpoints,
  };
  for (const line of drawService(picture, screen.columns, screen.glyphs)) screen.line(line);
}

/**
 * Asks the Service's name many times and shows who answered.
 *
 * @throws {SetupError} when one of the backends was asked far less than the others.
 */
export async function share(stage: Stage, traffic: Traffic, signal: AbortSignal): Promise<Tally> {
  const { shop, screen } = stage;
  screen.command(`wget -q -O - http://${names.service}    # ${shareCount} times in the frontend`);
  const pods = (await shop.endpoints(signal)).map(({ pod }) => pod);
  const tally = new Tally();
  for (let sent = 1; sent <= shareCount; sent += 1) {
    tally.add(await traffic.ask(signal));
    if (sent % 5 === 0) {
      const bars = drawBars(tally.perPod, screen.columns, screen.glyphs);
      screen.note([...bars, `  ${sent} of ${shareCount}`]);
    }
  }
  screen.line();
  for (const line of drawBars(tally.perPod, screen.columns, screen.glyphs)) screen.line(line);
  const idle = neglected(tally.perPod, pods);
  if (idle.length > 0) {
    throw new SetupError(`${idle.join(", ")} got less than 35 % of a fair share of the requests`);
  }
  const verdict = `${shareCount} requests, ${tally.failed} failed${because(tally)}`;
  screen.verdict(tally.failed === 0, verdict);
  return tally;
}

/** Kills a backend's process behind the cluster's back. Returns the seconds until that backend answered again. */
export async function kill(stage: Stage, traffic: Traffic, signal: AbortSignal): Promise<number> {
  const { shop, screen, engine, namespace, clock } = stage;
  const [victim] = await shop.pods(signal, names.backend);
  if (victim === undefined) throw new SetupError("there is no backend to kill");
  const { name, uid } = victim.metadata;
  const before = victim.status?.containerStatuses?.[0]?.restartCount ?? 0;
  const containers = await engine.containers(`io.kubernetes.pod.uid=${uid}`, signal);
  const container = containers.find(({ labels, running }) => {
    return running && labels["io.kubernetes.container.name"] === names.backend;
  });
  if (container === undefined)
    throw new SetupError(`${name} has no running container in ${namespace}`);
  screen.command(`docker kill ${container.name}`);
  const elapsed = stopwatch(clock);
  const show = counter(screen);
  let killedAt: number | undefined;
  let answeredAt: number | undefined;
  const { tally } = await traffic.during(
    async (inner) => {
      await engine.kill(container.id, inner);
      killedAt = elapsed();
      await shop.until(
        `the recovery of ${name}`,
        (pods) => {
          const pod = pods.find(({ metadata }) => metadata.uid === uid);
          if (pod === undefined) throw new SetupError(`${name} is gone`);
          const restarts = pod.status?.containerStatuses?.[0]?.restartCount ?? 0;
          return restarts > before && isReady(pod) && answeredAt !== undefined;
        },
        readyMs,
        inner,
      );
    },
    (answer, current) => {
      // The old process was gone before the engine answered: what comes now is the new one's.
      if (killedAt !== undefined && answer.kind === "answered" && answer.pod === name) {
        answeredAt ??= elapsed();
      }
      show(answer, current);
    },
    signal,
  );
  const seconds = (answeredAt ?? 0) - (killedAt ?? 0);
  const lost =
    tally.failed === 0
      ? "none failed"
      : `${tally.failed} failed that were on their way to it${because(tally)}`;
  screen.verdict(
    true,

    `its pod got a new container and answered again after ${seconds.toFixed(1)} s; of ${tally.answered + tally.failed} requests meanwhile ${lost}`,
  );
  return seconds;
}

/** Runs `work` under traffic and tells how it went. Returns the number of requests that failed. */
async function undisturbed(
  { screen }: Stage,
  traffic: Traffic,
  work: (signal: AbortSignal) => Promise<string>,
  signal: AbortSignal,
): Promise<number> {
  const { tally, value } = await traffic.during(work, counter(screen), signal);
  const sent = tally.answered + tally.failed;
  const text = `${value}; ${sent} requests meanwhile (${tally.describeVersions()}), ${tally.failed} failed${because(tally)}`;
  screen.verdict(tally.failed === 0, text);
  return tally.failed;
}

/** Deletes a backend. Returns the number of requests that failed. */
export function replace(stage: Stage, traffic: Traffic, signal: AbortSignal): Promise<number> {
  const { tool, shop, clock } = stage;
  const work = async (inner: AbortSignal): Promise<string> => {
    const before = (await shop.pods(inner, names.backend)).map(({ metadata }) => metadata.name);
    const [victim = ""] = before;
    command(stage, `delete pod ${victim}`);
    const elapsed = stopwatch(clock);
    await tool.deletePod(victim, inner);
    await shop.until(
      `a replacement of ${victim}`,
      (pods) => !pods.some(({ metadata }) => metadata.name === victim),
      readyMs,
      inner,
    );
    await shop.settled(names.backend, readyMs, inner);
    const after = await shop.pods(inner, names.backend);
    const fresh = after.find(({ metadata }) => !before.includes(metadata.name));
    return `replaced by ${fresh?.metadata.name ?? "?"}, the old one gone after ${elapsed().toFixed(1)} s`;
  };
  return undisturbed(stage, traffic, work, signal);
}

/** Changes the number of copies. Returns the number of requests that failed. */
export function scale(
  stage: Stage,
  traffic: Traffic,
  replicas: number,
  signal: AbortSignal,
): Promise<number> {
  const { tool, shop, clock } = stage;
  command(stage, `scale deployment/${names.backend} --replicas=${replicas}`);
  const work = async (inner: AbortSignal): Promise<string> => {
    const elapsed = stopwatch(clock);
    await tool.scale(names.backend, replicas, inner);
    await shop.settled(names.backend, readyMs, inner);
    return `${replicas} copies after ${elapsed().toFixed(1)} s`;
  };
  return undisturbed(stage, traffic, work, signal);
}

/** Waits for the end of a roll and makes sure that only `version` answers then. */
async function rolled(
  { shop, clock }: Stage,
  version: Version,
  start: (signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): Promise<string> {
  const elapsed = stopwatch(clock);
  await start(signal);
  await shop.settled(names.backend, rolloutMs, signal);
  for (const pod of await shop.pods(signal, names.backend)) {
    const image = pod.spec?.containers[0]?.image;
    if (image !== imageOf(version)) {
      throw new SetupError(`${pod.metadata.name} runs ${image ?? "?"}, not ${imageOf(version)}`);
    }
  }
  return `all copies are ${version} after ${elapsed().toFixed(1)} s`;
}

/** Upgrades the backends one after the other. Returns the number of requests that failed. */
export function upgrade(stage: Stage, traffic: Traffic, signal: AbortSignal): Promise<number> {
  const change = {
    deployment: names.backend,
    container: names.backend,
    image: imageOf("v2"),
  };
  command(stage, `set image deployment/${change.deployment} ${change.container}=${change.image}`);
  const start = (inner: AbortSignal): Promise<void> => stage.tool.setImage(change, inner);
  return undisturbed(stage, traffic, (inner) => rolled(stage, "v2", start, inner), signal);
}

/** Takes the upgrade back. Returns the number of requests that failed. */
export function rollBack(stage: Stage, traffic: Traffic, signal: AbortSignal): Promise<number> {
  command(stage, `rollout undo deployment/${names.backend}`);
  const start = (inner: AbortSignal): Promise<void> => stage.tool.rolloutUndo(names.backend, inner);
  return undisturbed(stage, traffic, (inner) => rolled(stage, "v1", start, inner), signal);
}
