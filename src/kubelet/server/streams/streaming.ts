import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";

import type { Clock } from "../../../lib/clock.ts";
import type { Logger } from "../../../lib/log.ts";
import type { ContainerRuntime } from "../../../runtime/types.ts";
import type { PodView } from "../../types.ts";
import { HttpRefusal } from "../http-refusal.ts";
import { containerTarget, findForStreaming } from "../pod-route.ts";
import { serveRemoteCommand, type StreamOptions } from "./remote-command.ts";
import { acceptSpdy } from "./spdy-channels.ts";
import { wantsSpdy } from "./spdy-upgrade.ts";
import { acceptWebSocket } from "./websocket-channels.ts";

export interface StreamingDeps {
  readonly runtime: Pick<ContainerRuntime, "exec" | "attach">;
  readonly pods: PodView;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** A request to leave HTTP, already authenticated and authorized. */
export interface UpgradeRequest {
  readonly request: IncomingMessage;
  readonly socket: Duplex;
  readonly head: Buffer;
  readonly url: URL;
}

/** The `input`, `output`, `error` and `tty` parameters. @throws {HttpRefusal} 400 when nothing is to be streamed. */
export function parseStreamOptions(query: URLSearchParams): StreamOptions {
  const on = (name: string): boolean => query.get(name) === "1" || query.get(name) === "true";
  const tty = on("tty");
  const options = {
    stdin: on("input"),
    stdout: on("output"),
    // A terminal has one output; asking for both is a habit of clients, not an error.
    stderr: on("error") && !tty,
    tty,
  };
  if (!options.stdin && !options.stdout && !options.stderr) {
    throw new HttpRefusal(400, "you must specify at least 1 of stdin, stdout, stderr");
  }
  return options;
}

/** /exec/... and /attach/..., over WebSocket or SPDY. @throws {HttpRefusal} while it still can be answered in HTTP. */
export async function serveStreaming(
  deps: StreamingDeps,
  upgrade: UpgradeRequest,
  signal: AbortSignal,
): Promise<void> {
  const { request, url } = upgrade;
  const target = containerTarget(url.pathname);
  if (target === undefined) throw new HttpRefusal(404, "404 page not found");
  const wanted = parseStreamOptions(url.searchParams);
  const command = url.searchParams.getAll("command");
  const exec = url.pathname.startsWith("/exec/");
  if (exec && command.length === 0) {
    throw new HttpRefusal(400, "you must specify at least 1 command to execute");
  }
  const container = await findForStreaming(deps.pods, target);
  // Attaching never changes the container: its own terminal and stdin decide.
  const options = exec ? wanted : attachOptions(wanted, container);
  // The streams are those the client asked for, also when the container has less to give.
  const channels = wantsSpdy(request)
    ? await acceptSpdy(upgrade, wanted, deps.clock)
    : await acceptWebSocket(upgrade, options, deps.clock);
  const { containerID } = container;
  deps.logger.log("debug", exec ? "exec" : "attach", { containerID, container: target.container });
  await serveRemoteCommand(
    {
      channels,
      options,
      failure: exec ? "error executing command in container" : "error attaching to container",
      logger: deps.logger,
      open: (inner) =>
        exec
          ? deps.runtime.exec(
              containerID,
              { command, stdin: options.stdin, tty: options.tty },
              inner,
            )
          : deps.runtime.attach(containerID, { stdin: options.stdin, tty: options.tty }, inner),
    },
    signal,
  );
}

function attachOptions(
  wanted: StreamOptions,
  container: { readonly tty: boolean; readonly stdin: boolean },
): StreamOptions {
  return {
    stdin: wanted.stdin && container.stdin,
    stdout: wanted.stdout,
    stderr: wanted.stderr && !container.tty,
    tty: container.tty,
  };
}
