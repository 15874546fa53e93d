import { parentPort, workerData } from "node:worker_threads";

import { createNameServer } from "../dns/name-server.ts";
import type { FromNameServer, NameServerSettings, ToNameServer } from "../dns/types.ts";
import { UpdateParts } from "../dns/update-parts.ts";
import { systemClock } from "../lib/clock.ts";
import type { Fields, Logger } from "../lib/log.ts";
import { random } from "./random.ts";

/** Entry of the name server's thread. */
async function main(settings: NameServerSettings): Promise<void> {
  const port = parentPort;
  if (port === null) throw new Error("dns-worker runs only as a worker thread");
  const send = (message: FromNameServer): void => port.postMessage(message);
  const logger = (base: Fields): Logger => ({
    log: (level, msg, fields) => send({ kind: "log", level, msg, fields: { ...base, ...fields } }),
    child: (fields) => logger({ ...base, ...fields }),
  });
  const stop = new AbortController();
  const server = createNameServer({
    settings,
    clock: systemClock,
    logger: logger({}),
    random,
    onListening: () => send({ kind: "listening" }),
  });
  const parts = new UpdateParts();
  port.on("message", (message: ToNameServer) => {
    if (message.kind === "records") {
      const update = parts.join(message.update, message.more === true);
      if (update !== undefined) server.apply(update);
    } else stop.abort(new DOMException("the agent stops", "AbortError"));
  });
  try {
    await server.run(stop.signal);
  } finally {
    // The port would keep the thread alive.
    port.close();
  }
}

void main(workerData as NameServerSettings);
