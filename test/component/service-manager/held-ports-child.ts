// The smallest thing that lives as the agent does with what systemd passes: HTTP on one socket, the name server on two
// others. Says what it sees of itself to whoever asks by HTTP; /again has the name server made anew, as after a crash.
import { execFileSync } from "node:child_process";
import { createServer } from "node:http";

import { openServiceManager } from "../../../src/agent/service-manager/open.ts";
import { DnsServer } from "../../../src/dns/server.ts";
import { listenUntilAborted } from "../../../src/kubelet/server/listen.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { UnderWay } from "../../../src/lib/under-way.ts";

const [http = 0, dns = 0] = process.argv.slice(2).map(Number);
const stop = new AbortController();
process.on("SIGTERM", () => stop.abort());
const service = await openServiceManager(systemClock, silentLogger, stop.signal);
const address = "127.0.0.1";
const clock = systemClock;

let round = new AbortController();
let listening = Promise.withResolvers<void>();

function makeNameServer(): DnsServer {
  const sockets = (["udp", "tcp"] as const).map((protocol) => {
    const fd = service.sockets.take(protocol, { address, port: dns });
    if (fd === undefined) throw new Error(`no socket for ${protocol}`);
    return { protocol, address, fd };
  });
  return new DnsServer({
    // What it is asked is what it answers.
    resolver: { answer: (message) => message },
    addresses: [address],
    port: dns,
    passed: sockets,
    clock,
    logger: silentLogger,
    onListening: () => listening.resolve(),
  });
}

async function runNameServer(): Promise<void> {
  while (!stop.signal.aborted) {
    await makeNameServer().run(AbortSignal.any([stop.signal, round.signal]));
    round = new AbortController();
  }
}

function facts(): object {
  const ofChild = execFileSync("sh", ["-c", "ls -l /proc/self/fd; env"], { encoding: "utf8" });
  return {
    unused: service.sockets.unused,
    // The first three are its own.
    socketsOfChild: [...ofChild.matchAll(/(\d+) -> socket:/g)].filter(([, fd]) => Number(fd) > 2)
      .length,
    variablesOfChild: ofChild.match(/^(?:LISTEN|NOTIFY|WATCHDOG)\w*/gm) ?? [],
  };
}

const server = createServer((request, response) => {
  void (async () => {
    if (request.url === "/again") {
      listening = Promise.withResolvers();
      round.abort();
      await listening.promise;
    }
    response.end(JSON.stringify(request.url === "/facts" ? facts() : {}));
  })();
});
const fd = service.sockets.take("tcp", { address, port: http });
const asking = new UnderWay();
server.on("connection", (socket) => socket.once("close", asking.begin()));
const drained = (): Promise<void> => asking.settled(AbortSignal.timeout(1000));
const parts = [
  listenUntilAborted(
    server,
    {
      address,
      port: http,
      option: "http",
      fd,
      drained,
    },
    stop.signal,
  ),
  runNameServer(),
];
await listening.promise;
service.reached("node");
service.reached("rules");
await Promise.all(parts);
