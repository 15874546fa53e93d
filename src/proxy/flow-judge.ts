import type { IPFamily } from "../lib/cidr.ts";
import type { StaleFlows, UDPFlow } from "./conntrack.ts";
import type { PlannedPort } from "./plan.ts";

/** What the verdict on a flow depends on. */
export interface FlowContext {
  readonly family: IPFamily;
  /** Ports that are planned now, by `ip port`; node ports under an empty address. UDP only. */
  readonly frontends: ReadonlyMap<string, PlannedPort>;
  /** Whether an address belongs to Services alone. */
  readonly isServiceIP: (ip: string) => boolean;
  /** Whether node ports answer on an address. */
  readonly isNodePortIP: (ip: string) => boolean;
}

/**
 * Whether a UDP flow goes where it should. Flows that are not for a Service are never judged: their destination is no
 * cluster IP, no address of a Service and no node port on an address of this node.
 */
export function judgeFlow(flow: UDPFlow, context: FlowContext): StaleFlows | undefined {
  const { family, frontends } = context;
  const { destination, port, from } = flow;
  const addressed = frontends.get(`${destination} ${port}`);
  if (addressed !== undefined) {
    const vip = destination;
    return isRight(flow, addressed, vip) ? undefined : { family, vip, port, from };
  }
  if (context.isServiceIP(destination)) {
    // No such port any more. What was never translated is being refused, which is right.
    return from === destination ? undefined : { family, vip: destination, port, from };
  }
  const nodePort = frontends.get(` ${port}`);
  if (nodePort === undefined || from === destination || !context.isNodePortIP(destination)) {
    return undefined;
  }
  return isRight(flow, nodePort, "") ? undefined : { family, vip: destination, port, from };
}

function isRight(flow: UDPFlow, plan: PlannedPort, vip: string): boolean {
  const frontend = plan.frontends.find(({ ip, port }) => ip === vip && port === flow.port);
  if (frontend === undefined) return true;
  const forwards = frontend.verdict !== "reject" && frontend.verdict !== "drop";
  if (flow.from === flow.destination) return !forwards;
  return (
    forwards && plan.serving.some(({ ip, port }) => ip === flow.from && port === flow.fromPort)
  );
}
