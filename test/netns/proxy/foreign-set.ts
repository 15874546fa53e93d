import { sh } from "../namespace.ts";

const program = String.raw`
use Socket;
socket(my $s, 16, SOCK_RAW, 12) or die "socket: $!";
send($s, pack("H*", $ARGV[0]), 0, pack("S S L L", 16, 0, 0, 0)) or die "send: $!";
for (1 .. 2) {
  recv($s, my $answer, 65536, 0);
  my $error = unpack("l", substr($answer, 16, 4));
  die "kernel: $error" if $error != 0;
}
`;

function attribute(type: number, value: Buffer): Buffer {
  const padded = Buffer.alloc(4 + Math.ceil(value.length / 4) * 4);
  padded.writeUInt16LE(4 + value.length, 0);
  padded.writeUInt16LE(type, 2);
  value.copy(padded, 4);
  return padded;
}

function text(value: string): Buffer {
  return Buffer.from(`${value}\0`);
}

function number(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function message(type: number, flags: number, family: number, rest: readonly Buffer[]): Buffer {
  const body = Buffer.concat(rest);
  const head = Buffer.alloc(20);
  head.writeUInt32LE(20 + body.length, 0);
  head.writeUInt16LE(type, 4);
  head.writeUInt16LE(flags, 6);
  head.writeUInt32LE(1, 8);
  head.writeUInt8(family, 16);
  // Of a batch's ends: the subsystem.
  head.writeUInt16BE(type < 0x100 ? 10 : 0, 18);
  return Buffer.concat([head, body]);
}

/**
 * Makes a table with a set whose key is of a type that no nft knows yet, as a newer nft may: nft itself cannot write
 * such a thing, so this speaks netlink.
 */
export async function addForeignSet(family: "ip" | "ip6", table: string): Promise<void> {
  const nfproto = family === "ip" ? 2 : 10;
  const [request, ack, create] = [1, 4, 0x400];
  const batch = Buffer.concat([
    message(0x10, request, 0, []),
    message(0x0a00, request | ack | create, nfproto, [
      attribute(1, text(table)),
      attribute(2, number(0)),
    ]),
    message(0x0a09, request | ack | create, nfproto, [
      attribute(1, text(table)),
      attribute(2, text("of-the-future")),
      attribute(3, number(0)),
      attribute(4, number(0x3f)),
      attribute(5, number(4)),
      attribute(10, number(1)),
    ]),
    message(0x11, request, 0, []),
  ]);
  await sh("perl", "-e", program, batch.toString("hex"));
}
