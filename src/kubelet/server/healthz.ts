import { createServer } from "node:http";

import { listenUntilAborted } from "./listen.ts";

/** Plain HTTP on loopback, `/healthz` only: what init systems and installers wait for. Port 0 is off. */
export async function runHealthzServer(
  options: {
    readonly port: number;
    /** What is wrong; undefined when well. */
    readonly healthy: () => string | undefined;
  },
  signal: AbortSignal,
): Promise<void> {
  if (options.port === 0) return;
  const server = createServer((request, response) => {
    const path = (request.url ?? "/").split("?")[0];
    if (path !== "/healthz") {
      response.writeHead(404, { "Content-Type": "text/plain" }).end("404 page not found\n");
      return;
    }
    const trouble = options.healthy();
    response.writeHead(trouble === undefined ? 200 : 500, { "Content-Type": "text/plain" });
    response.end(trouble === undefined ? "ok" : `healthz check failed: ${trouble}\n`);
  });
  await listenUntilAborted(server, "127.0.0.1", options.port, "kubeletHealthzPort", signal);
}
