// Traffic that nobody means well. Each prints one JSON object at its end; `hold` one line when all are open too.
//   udp ADDRESS PORT PER_SECOND SECONDS   datagrams, each a question for another name of the cluster: { sent }
//   hold ADDRESS PORT COUNT SECONDS       connections that begin a message and never end it: { open, opened }
//   syn FROM ADDRESS PORT COUNT           first packets of connections, from as many ports; needs perl: { sent }
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

import { encode } from "dns-packet";

const [mode = "", ...args] = process.argv.slice(2);

function say(figures: object): void {
  process.stdout.write(`${JSON.stringify(figures)}\n`);
}

/** Names that nothing has kept an answer for. */
function questions(count: number): readonly Buffer[] {
  return Array.from({ length: count }, (_, index) => {
    const name = `no-such-service-${index}.default.svc.cluster.local`;
    return encode({ type: "query", id: index, flags: 0x100, questions: [{ name, type: "A" }] });
  });
}

async function udp(address: string, port: number, perSecond: number, ms: number): Promise<void> {
  const socket = createSocket({ type: "udp4", recvBufferSize: 4096 });
  socket.on("error", () => undefined);
  socket.connect(port, address);
  await once(socket, "connect");
  const messages = questions(20_000);
  const startedAt = performance.now();
  let sent = 0;
  for (let now = startedAt; now < startedAt + ms; now = performance.now()) {
    const due = ((now - startedAt) * perSecond) / 1000;
    for (let left = Math.min(due - sent, 100); left > 0; left -= 1) {
      const message = messages[sent % messages.length];
      if (message !== undefined) socket.send(message);
      sent += 1;
    }
    await (sent < due ? new Promise(setImmediate) : delay(1));
  }
  socket.close();
  say({ sent });
}

async function hold(address: string, port: number, count: number, ms: number): Promise<void> {
  const sockets: Socket[] = [];
  let opened = 0;
  for (let index = 0; index < count; index += 1) {
    const socket = connect({ host: address, port });
    sockets.push(socket);
    socket.on("error", () => undefined);
    socket.on("connect", () => {
      opened += 1;
      // Half of a message's length.
      socket.write(Buffer.from([1]));
    });
    socket.resume();
    if (index % 32 === 0) await delay(5);
  }
  await delay(300);
  say({ opened });
  await delay(ms);
  say({ opened, open: sockets.filter(({ readyState }) => readyState === "open").length });
  for (const socket of sockets) socket.destroy();
}

/** The kernel makes the IP header. */
const synProgram = String.raw`
use Socket qw(:all);
my ($from, $to, $port, $count) = @ARGV;
socket(my $s, AF_INET, SOCK_RAW, IPPROTO_TCP) or die "socket: $!";
my $at = pack_sockaddr_in(0, inet_aton($to));
my $pseudo = inet_aton($from) . inet_aton($to) . pack("nn", 6, 20);
my $sent = 0;
for my $index (0 .. $count - 1) {
  my $head = sub { pack("nnNNnnnn", 1024 + $index % 64000, $port, $index, 0, 0x5002, 64240, $_[0], 0) };
  my $sum = 0;
  $sum += $_ for unpack("n*", $pseudo . $head->(0));
  $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
  send($s, $head->(~$sum & 0xffff), 0, $at) and $sent += 1;
  select(undef, undef, undef, 0.001) if $index % 50 == 0;
}
print "{\"sent\":$sent}\n";
`;

const [first = "", second = "", third = "", fourth = ""] = args;
if (mode === "udp") {
  await udp(first, Number(second), Number(third), Number(fourth) * 1000);
} else if (mode === "hold") {
  await hold(first, Number(second), Number(third), Number(fourth) * 1000);
} else if (mode === "syn") {
  const argv = ["-e", synProgram, first, second, third, fourth];
  await once(spawn("perl", argv, { stdio: ["ignore", "inherit", "inherit"] }), "close");
}
