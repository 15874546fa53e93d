import type { IncomingMessage, ServerResponse } from "node:http";

import { answerText } from "./health.ts";
import { listenUntilAborted } from "./listen.ts";

/**
 * Serves `/metrics`, `/healthz` and `/proxyMode` until the signal aborts, as kube-proxy does on 10249.
 *
 * @param render Makes the text of `/metrics`.
 * @param at Port 0 = no server.
 * @throws {SetupError} when the port cannot be had.
 */
export async function serveMetrics(
  { address = "127.0.0.1", port }: { readonly address?: string | undefined; readonly port: number },
  render: () => string,
  signal: AbortSignal,
): Promise<void> {
  await listenUntilAborted(
    {
      purpose: "proxy metrics",
      setting: "proxyMetricsPort",
      address,
      port,
      onRequest: (request, response) => {
        answer(render, request, response);
      },
    },
    signal,
  );
}

function answer(render: () => string, request: IncomingMessage, response: ServerResponse): void {
  switch ((request.url ?? "/").split("?")[0] ?? "") {
    case "/metrics":
      answerText(response, 200, render(), "text/plain; version=0.0.4; charset=utf-8");
      return;
    case "/healthz":
      answerText(response, 200, "ok");
      return;
    case "/proxyMode":
      answerText(response, 200, "nftables");
      return;
    default:
      answerText(response, 404, "404 page not found\n");
  }
}
