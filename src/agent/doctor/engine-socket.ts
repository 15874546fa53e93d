import { request } from "node:http";

import { ParseError } from "../../lib/errors.ts";

const mostBytes = 16 * 1024 * 1024;

/**
 * Asks an HTTP server on a unix socket, as Docker's and the agent's own.
 *
 * @returns Status and body.
 * @throws what the system says (ENOENT, ECONNREFUSED, EACCES, ...), or the signal's reason.
 */
export async function getOnSocket(
  socketPath: string,
  path: string,
  signal: AbortSignal,
): Promise<{ readonly status: number; readonly body: string }> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: string }>();
  const outgoing = request({ socketPath, path, signal, agent: false }, (incoming) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    incoming.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      chunks.push(chunk);
      if (bytes > mostBytes) outgoing.destroy(new Error(`${path}: the answer is too long`));
    });
    incoming.on("error", reject);
    incoming.on("end", () =>
      resolve({
        status: incoming.statusCode ?? 0,
        body: Buffer.concat(chunks).toString("utf8"),
      }),
    );
  });
  outgoing.on("error", reject);
  outgoing.end();
  return promise;
}

/** As {@link getOnSocket}, its body as JSON. @throws also {@link ParseError} for another status than 200, and for what is no JSON. */
export async function getJSONOnSocket(
  socketPath: string,
  path: string,
  signal: AbortSignal,
): Promise<unknown> {
  const { status, body } = await getOnSocket(socketPath, path, signal);
  if (status !== 200) throw new ParseError(path, `status 200 and not ${status}`);
  try {
    const value: unknown = JSON.parse(body);
    return value;
  } catch (error) {
    throw new ParseError(path, "JSON", { cause: error });
  }
}
