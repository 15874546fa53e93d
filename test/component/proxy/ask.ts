import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";

import { systemClock } from "../../../src/lib/clock.ts";

/** A port that nobody has at the moment. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** Asks until somebody answers. A new connection each time: the servers cut idle ones when they end. */
export async function ask(
  port: number,
  path = "/",
  { host = "127.0.0.1", headers = {}, method = "GET" } = {},
): Promise<Response> {
  for (let turn = 0; ; turn += 1) {
    try {
      return await fetch(`http://${host}:${port}${path}`, {
        method,
        headers: { connection: "close", ...headers },
      });
    } catch (error) {
      if (turn === 20) throw error;
      await systemClock.sleep(5, new AbortController().signal);
    }
  }
}

/** Whether nobody listens there. */
export async function isRefused(port: number, host = "127.0.0.1"): Promise<boolean> {
  try {
    await fetch(`http://${host}:${port}/`, { headers: { connection: "close" } });
    return false;
  } catch {
    return true;
  }
}
