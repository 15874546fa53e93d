import type { IPFamily } from "../lib/cidr.ts";
import { type FlowTarget, forwards, type StaleFlows } from "./conntrack.ts";
import type { FlowEnds } from "../netfilter/conntrack.ts";
import type { PlannedPort } from "./plan.ts";

/** What the verdict on a flow depends on. */
export interface FlowContext {
  readonly family: IPFamily;
  /** The UDP port that has an address and port now; node ports under an empty address. */
  readonly ownerOf: (target: FlowTarget) => PlannedPort | undefined;
  /** Whether an address belongs to Services alone. */
  readonly isServiceIP: (ip: string) => boolean;
  /** Whether node ports answer on an address. */
  readonly isNodePortIP: (ip: string) => boolean;
  /** Whether a frontend was there a moment ago. */
  readonly wasFrontend?: (target: FlowTarget) => boolean;
  /** Whether node ports answered on an address a moment ago. */
  readonly wasNodePortIP?: (ip: string) => boolean;
}

/**
 * Whether a UDP flow goes where it should. Flows that are not for a Service are never judged: their destination is no
 * cluster IP, no address of a Service and no node port on an address of this node.
 */
export function judgeFlow(flow: FlowEnds, context: FlowContext): StaleFlows | undefined {
  const { ownerOf, isNodePortIP, isServiceIP, wasFrontend = () => false } = context;
  const { wasNodePortIP = () => false } = context;
  const { destination, port } = flow;
  const addressed = ownerOf({ ip: destination, port });
  if (addressed !== undefined) return judgeBy(flow, addressed, destination, context);
  if (isServiceIP(destination) || wasFrontend({ ip: destination, port })) {
    return unlessUntranslated(flow, context);
  }
  const nodePort = ownerOf({ ip: "", port });
  if (!isNodePortIP(destination)) {
    const left = nodePort !== undefined && wasNodePortIP(destination);
    return left ? unlessUntranslated(flow, context) : undefined;
  }
  if (nodePort !== undefined) return judgeBy(flow, nodePort, "", context);
  return wasFrontend({ ip: "", port }) ? unlessUntranslated(flow, context) : undefined;
}

/** No such port any more. What was never translated is being refused, which is right. */
function unlessUntranslated(
  { destination: vip, port, from }: FlowEnds,
  { family }: FlowContext,
): StaleFlows | undefined {
  return from === vip ? undefined : { family, vip, port, from: undefined };
}

function judgeBy(
  { destination, port, from, fromPort }: FlowEnds,
  plan: PlannedPort,
  vip: string,
  { family }: FlowContext,
): StaleFlows | undefined {
  const frontend = plan.frontends.find((one) => one.ip === vip && one.port === port);
  if (frontend === undefined) return undefined;
  const forwarding = forwards(frontend);
  if (from === destination && !forwarding) return undefined;
  const serves = plan.serving.some(({ ip, port }) => ip === from && port === fromPort);
  if (forwarding && serves) return undefined;
  const flows = { family, vip: destination, port };
  return { ...flows, from: forwarding ? { ip: from, port: fromPort } : undefined };
}
