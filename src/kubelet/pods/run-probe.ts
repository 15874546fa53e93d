import { connect } from "node:net";

import type { ExecAction, Probe } from "../../api/types.gen.ts";
import { type Clock, deadline } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { ContainerRuntime } from "../../runtime/types.ts";
import { expandReferences } from "../spec/expand.ts";
import type { PodContainer } from "../spec/containers.ts";
import { formatSeconds } from "../status/container-status.ts";
import { dialError, hostPort } from "./dial-error.ts";
import { grpcProbe } from "./grpc-probe.ts";
import { httpProbe } from "./http-probe.ts";
import { resolvePort } from "./ports.ts";
import type { ProbeOutcome, ProbeTarget } from "./probe-types.ts";

const maxOutputBytes = 10 * 1024;
const userAgent = "kube-probe/1.36";

/** What probes are made with. */
export interface ProbeMeans {
  readonly runtime: Pick<ContainerRuntime, "execSync">;
  readonly clock: Pick<Clock, "sleep">;
}

/**
 * Makes one probe, within its timeout.
 *
 * @throws only when `signal` has aborted.
 */
export async function runProbe(
  means: ProbeMeans,
  probe: Probe,
  target: ProbeTarget,
  signal: AbortSignal,
): Promise<ProbeOutcome> {
  const timeoutMs = Math.max(probe.timeoutSeconds ?? 1, 1) * 1000;
  try {
    if (probe.exec !== undefined) {
      return await execProbe(means.runtime, { action: probe.exec, target, timeoutMs }, signal);
    }
    return await networkProbe(probe, target, { ...means, timeoutMs }, deadline(signal, timeoutMs));
  } catch (error) {
    if (signal.aborted) throw error;
    return { kind: "error", message: errorMessage(error) };
  }
}

async function networkProbe(
  probe: Probe,
  { entry, podIP, pod }: ProbeTarget,
  { clock, timeoutMs }: Pick<ProbeMeans, "clock"> & { readonly timeoutMs: number },
  signal: AbortSignal,
): Promise<ProbeOutcome> {
  const hostOf = ({ host }: { readonly host?: string | undefined }): string =>
    host === undefined || host === "" ? podIP : host;
  const { grpc, httpGet, tcpSocket } = probe;
  if (httpGet !== undefined) {
    const port = resolvePort(entry.container, httpGet.port);
    return httpProbe(httpGet, { host: hostOf(httpGet), port, userAgent }, signal);
  }
  if (tcpSocket !== undefined) {
    const port = resolvePort(entry.container, tcpSocket.port);
    return tcpProbe(hostOf(tcpSocket), port, signal);
  }
  if (grpc !== undefined) {
    const { port, service = "" } = grpc;
    return grpcProbe({ host: podIP, port, service, userAgent, timeoutMs }, clock, signal);
  }
  const { name, namespace = "" } = pod.metadata;
  const message = `missing probe handler for ${namespace}/${name}:${entry.container.name}`;
  return { kind: "error", message };
}

/** Environment that exec probes may refer to: literal values only, as the API documents. */
function literalEnvironment({ container }: PodContainer): ReadonlyMap<string, string> {
  return new Map(
    (container.env ?? []).flatMap(({ name, value }) =>
      value === undefined ? [] : [[name, value] as const],
    ),
  );
}

async function execProbe(
  runtime: Pick<ContainerRuntime, "execSync">,
  call: { readonly action: ExecAction; readonly target: ProbeTarget; readonly timeoutMs: number },
  signal: AbortSignal,
): Promise<ProbeOutcome> {
  const { action, target, timeoutMs } = call;
  const environment = literalEnvironment(target.entry);
  const command = (action.command ?? []).map((word) =>
    expandReferences(word, (name) => environment.get(name)),
  );
  const limits = { timeoutMs, maxBytes: maxOutputBytes };
  const result = await runtime.execSync(target.containerID, command, limits, signal);
  if (result.timedOut) {
    const output = `command timed out: "${command.join(" ")}" timed out after ${formatSeconds(timeoutMs)}`;
    return { kind: "failure", output };
  }
  if (result.exitCode === 0) return { kind: "success" };
  const output = Buffer.concat([result.stdout, result.stderr]).subarray(0, maxOutputBytes);
  return { kind: "failure", output: output.toString("utf8") };
}

async function tcpProbe(host: string, port: number, signal: AbortSignal): Promise<ProbeOutcome> {
  const address = hostPort(host, port);
  return new Promise<ProbeOutcome>((resolve) => {
    const socket = connect({ host, port });
    const finish = (outcome: ProbeOutcome): void => {
      signal.removeEventListener("abort", onAbort);
      socket.destroy();
      resolve(outcome);
    };
    const onAbort = (): void =>
      finish({ kind: "failure", output: `dial tcp ${address}: i/o timeout` });
    signal.addEventListener("abort", onAbort, { once: true });
    socket.once("connect", () => finish({ kind: "success" }));
    socket.once("error", (error) => finish({ kind: "failure", output: dialError(error, address) }));
    if (signal.aborted) onAbort();
  });
}
