import type { ServerResponse } from "node:http";

/** Answers in plain text. */
export function answerText(
  response: ServerResponse,
  status: number,
  text: string,
  contentType = "text/plain; charset=utf-8",
): void {
  response.writeHead(status, {
    "Content-Type": contentType,
    "X-Content-Type-Options": "nosniff",
    // Without it Node sends chunks, which the simpler load balancers do not understand.
    "Content-Length": Buffer.byteLength(text),
  });
  response.end(text);
}

/** Answers with JSON text. */
export function answerJSON(response: ServerResponse, status: number, text: string): void {
  answerText(response, status, text, "application/json");
}

export function answerNotFound(response: ServerResponse): void {
  answerText(response, 404, "404 page not found\n");
}
