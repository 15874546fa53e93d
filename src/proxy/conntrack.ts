import type { IPFamily } from "../lib/cidr.ts";
import { errorCode } from "../lib/errors.ts";
import { execResult } from "../lib/exec.ts";
import type { Frontend, PlannedPort } from "./plan.ts";

/** Flows to forget: datagrams from a client to a frontend that conntrack still sends to `from`. */
export interface StaleFlows {
  readonly family: IPFamily;
  /** Undefined for a node port: any address of the node. */
  readonly vip: string | undefined;
  readonly port: number;
  /** Where the answers come from; the frontend's own address for flows that were never translated. */
  readonly from: string;
}

function forwards(frontend: Frontend): boolean {
  return frontend.verdict !== "reject" && frontend.verdict !== "drop";
}

function backends(plan: PlannedPort | undefined): ReadonlySet<string> {
  return new Set([...(plan?.cluster ?? []), ...(plan?.local ?? [])].map(({ ip }) => ip));
}

/**
 * The UDP flows that a change of one port makes wrong. Without their removal a client that keeps sending from one port
 * keeps sending to where its first datagram went. TCP flows are left alone: they end by themselves.
 */
export function staleFlows(
  family: IPFamily,
  before: PlannedPort | undefined,
  after: PlannedPort | undefined,
): readonly StaleFlows[] {
  const protocol = before?.protocol ?? after?.protocol;
  if (protocol !== "udp") return [];
  return [...toGoneBackends(family, before, after), ...neverTranslated(family, before, after)];
}

function sameFrontend(plan: PlannedPort | undefined, { ip, port }: Frontend): Frontend | undefined {
  return plan?.frontends.find((other) => other.ip === ip && other.port === port);
}

function flowsOf(family: IPFamily, { ip, port }: Frontend, from: string): StaleFlows {
  return { family, vip: ip === "" ? undefined : ip, port, from };
}

/** A frontend that is gone has no right flows; one that stays has wrong ones to backends that are gone. */
function toGoneBackends(
  family: IPFamily,
  before: PlannedPort | undefined,
  after: PlannedPort | undefined,
): readonly StaleFlows[] {
  const kept = backends(after);
  return (before?.frontends ?? [])
    .filter(forwards)
    .flatMap((frontend) =>
      [...backends(before)]
        .filter((from) => sameFrontend(after, frontend) === undefined || !kept.has(from))
        .map((from) => flowsOf(family, frontend, from)),
    );
}

/** Datagrams that came before there was a backend were tracked with the address they were sent to. */
function neverTranslated(
  family: IPFamily,
  before: PlannedPort | undefined,
  after: PlannedPort | undefined,
): readonly StaleFlows[] {
  return (after?.frontends ?? [])
    .filter((frontend) => frontend.ip !== "" && forwards(frontend))
    .filter((frontend) => {
      const was = sameFrontend(before, frontend);
      return was === undefined || !forwards(was);
    })
    .map((frontend) => flowsOf(family, frontend, frontend.ip));
}

/**
 * Deletes flows with the `conntrack` tool. Without the tool nothing happens.
 *
 * @returns false when there is no such tool.
 */
export async function deleteFlows(
  flows: readonly StaleFlows[],
  signal: AbortSignal,
): Promise<boolean> {
  for (const { family, vip, port, from } of flows) {
    const argv: [string, ...string[]] = [
      "conntrack",
      "-D",
      "-p",
      "udp",
      "-f",
      family === "IPv4" ? "ipv4" : "ipv6",
      ...(vip === undefined ? [] : ["--orig-dst", vip]),
      "--dport",
      String(port),
      "--reply-src",
      from,
    ];
    try {
      // Exit code 1 means that there was no such flow.
      await execResult(argv, { signal });
    } catch (error) {
      if (errorCode(error) === "ENOENT") return false;
      throw error;
    }
  }
  return true;
}
