import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";

import type { Addresses } from "./addresses.ts";
import type { Peer } from "./peer.ts";

// Node has no raw sockets. Lines in: "ADDRESS HEX", lines out: the same of what came.
const program = String.raw`
use Socket qw(:all);
$| = 1;
my ($six, $protocol) = @ARGV;
socket(my $s, $six ? AF_INET6 : AF_INET, SOCK_RAW, $protocol) or die "socket: $!";
print "ready\n";
my $sender = fork;
if ($sender == 0) {
  while (<STDIN>) {
    my ($to, $hex) = split;
    my $at = $six ? pack_sockaddr_in6(0, inet_pton(AF_INET6, $to)) : pack_sockaddr_in(0, inet_aton($to));
    send($s, pack("H*", $hex), 0, $at) or print "error $!\n";
  }
  kill "KILL", getppid;
  exit;
}
while (defined(my $from = recv($s, my $packet, 65535, 0))) {
  my $ip = $six ? (unpack_sockaddr_in6($from))[1] : (unpack_sockaddr_in($from))[1];
  substr($packet, 0, 4 * (ord($packet) & 15)) = "" unless $six;
  print inet_ntop($six ? AF_INET6 : AF_INET, $ip), " ", unpack("H*", $packet), "\n";
}
`;

/** A raw IP socket of one protocol in a peer's namespace. */
export class RawSocket {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;

  private constructor(child: ChildProcessByStdio<Writable, Readable, null>) {
    this.#child = child;
  }

  static async open(
    peer: Pick<Peer, "pid">,
    { suffix }: Pick<Addresses, "suffix">,
    protocol: number,
    onPacket: (from: string, packet: Buffer) => void = () => undefined,
  ): Promise<RawSocket> {
    const perl = ["perl", "-e", program, suffix === "v6" ? "1" : "0", String(protocol)];
    const child = spawn("nsenter", ["-t", String(peer.pid), "-n", ...perl], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const lines = createInterface({ input: child.stdout });
    await once(lines, "line");
    lines.on("line", (line) => {
      const [from = "", hex = ""] = line.split(" ");
      onPacket(from, Buffer.from(hex, "hex"));
    });
    return new RawSocket(child);
  }

  /** Sends a transport header and what follows it; the kernel makes the IP header. */
  send(to: string, packet: Buffer): void {
    this.#child.stdin.write(`${to} ${packet.toString("hex")}\n`);
  }

  async close(): Promise<void> {
    const ended = once(this.#child, "close");
    this.#child.stdin.end();
    await ended;
  }
}

/** A TCP segment with its checksum. */
export function tcpSegment(options: {
  readonly from: string;
  readonly to: string;
  readonly fromPort: number;
  readonly toPort: number;
  readonly sequence: number;
  readonly acknowledged: number;
  readonly text: string;
}): Buffer {
  const payload = Buffer.from(options.text);
  const segment = Buffer.alloc(20 + payload.length);
  segment.writeUInt16BE(options.fromPort, 0);
  segment.writeUInt16BE(options.toPort, 2);
  segment.writeUInt32BE(options.sequence, 4);
  segment.writeUInt32BE(options.acknowledged, 8);
  // Five words of header; ACK and PSH.
  segment.writeUInt16BE(0x5018, 12);
  segment.writeUInt16BE(8192, 14);
  payload.copy(segment, 20);
  const pseudo = Buffer.concat([
    addressBytes(options.from),
    addressBytes(options.to),
    Buffer.from([0, 6]),
    Buffer.from([segment.length >> 8, segment.length & 255]),
    segment,
  ]);
  let sum = 0;
  for (let at = 0; at < pseudo.length; at += 2)
    sum += pseudo.readUInt8(at) * 256 + (pseudo[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  segment.writeUInt16BE(~sum & 0xffff, 16);
  return segment;
}

function addressBytes(ip: string): Buffer {
  if (!ip.includes(":")) return Buffer.from(ip.split(".").map(Number));
  const [head = "", tail] = ip.split("::");
  const words = (text: string): number[] =>
    text === "" ? [] : text.split(":").map((word) => Number.parseInt(word, 16));
  const first = words(head);
  const last = words(tail ?? "");
  const all = [
    ...first,
    ...Array.from({ length: 8 - first.length - last.length }, () => 0),
    ...last,
  ];
  return Buffer.from(all.flatMap((word) => [word >> 8, word & 255]));
}
