import type { IPFamily } from "../lib/cidr.ts";
import { errorMessage, isAbort } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { FlowEnds } from "../netfilter/conntrack.ts";
import { deleteFlows, type FlowTable, listFlows } from "./conntrack.ts";

/** So many different targets are looked after; whoever waits for others waits as long as without us. */
const mostTargets = 500;

/**
 * Connections to Services that were begun before there were rules, as pods do that start with the machine: conntrack has
 * them as not translated, and so each repetition of their SYN goes where no Service is, until the client gives up (two
 * minutes by default). Forgotten, the next repetition meets the rules.
 *
 * @param options.isClusterIP Whether an address belongs to a Service.
 * @returns How many there were. Never rejects but with `AbortError`.
 */
export async function freeEarlyConnections(
  options: {
    readonly family: IPFamily;
    readonly isClusterIP: (ip: string) => boolean;
    readonly logger: Logger;
    /** Default: that of this machine. */
    readonly table?: FlowTable;
  },
  signal: AbortSignal,
): Promise<number> {
  const { family, isClusterIP, logger, table = { list: listFlows, delete: deleteFlows } } = options;
  const targets = new Map<string, { readonly vip: string; readonly port: number }>();
  const onFlow = ({ destination: vip, from, fromPort, port }: FlowEnds): void => {
    if (from !== vip || fromPort !== port || targets.size >= mostTargets || !isClusterIP(vip)) {
      return;
    }
    targets.set(`${vip} ${port}`, { vip, port });
  };
  try {
    if (!(await table.list({ family, protocol: "tcp", state: "SYN_SENT" }, onFlow, signal))) {
      return 0;
    }
    const stale = [...targets.values()].map(({ vip, port }) => {
      return { family, protocol: "tcp", vip, port, from: { ip: vip, port } } as const;
    });
    const count = stale.length === 0 ? 0 : ((await table.delete(stale, signal)) ?? 0);
    if (count > 0) {
      logger.log("info", "connections that were begun before there were rules are begun anew", {
        ipFamily: family,
        connections: count,
      });
    }
    return count;
  } catch (error) {
    if (isAbort(error)) throw error;
    logger.log(
      "warn",
      "connections that were begun before there were rules could not be looked for",
      {
        ipFamily: family,
        error: errorMessage(error),
      },
    );
    return 0;
  }
}
