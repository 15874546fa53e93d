import type { Addresses } from "./addresses.ts";
import type { Peer } from "./peer.ts";
import { RawSocket } from "./raw-socket.ts";

const protocol = 132;
const init = 1;
const initAck = 2;

function crc32c(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ ((crc & 1) * 0x82f63b78);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** An INIT, or what answers one (RFC 9260, 3.3.2 and 3.3.3), with `tag` as its Initiate Tag. */
function handshake(options: {
  readonly chunk: typeof init | typeof initAck;
  readonly fromPort: number;
  readonly toPort: number;
  readonly verification: number;
  readonly tag: number;
}): Buffer {
  // An INIT ACK has to carry a State Cookie.
  const cookie =
    options.chunk === initAck ? Buffer.from([0, 7, 0, 8, 1, 2, 3, 4]) : Buffer.alloc(0);
  const packet = Buffer.alloc(32);
  packet.writeUInt16BE(options.fromPort, 0);
  packet.writeUInt16BE(options.toPort, 2);
  packet.writeUInt32BE(options.verification, 4);
  packet.writeUInt8(options.chunk, 12);
  packet.writeUInt16BE(20 + cookie.length, 14);
  packet.writeUInt32BE(options.tag, 16);
  packet.writeUInt32BE(65_536, 20);
  packet.writeUInt16BE(1, 24);
  packet.writeUInt16BE(1, 26);
  packet.writeUInt32BE(1, 28);
  const whole = Buffer.concat([packet, cookie]);
  whole.writeUInt32LE(crc32c(whole), 8);
  return whole;
}

/** Answers every INIT with an INIT ACK whose Initiate Tag is `tag`. Kernels without SCTP can still translate it. */
export async function serveSCTP(
  peer: Pick<Peer, "pid">,
  at: Pick<Addresses, "suffix">,
  tag: number,
): Promise<RawSocket> {
  const socket: RawSocket = await RawSocket.open(peer, at, protocol, (from, packet) => {
    if (packet.length < 32 || packet.readUInt8(12) !== init) return;
    const [fromPort, toPort] = [packet.readUInt16BE(2), packet.readUInt16BE(0)];
    const verification = packet.readUInt32BE(16);
    socket.send(from, handshake({ chunk: initAck, fromPort, toPort, verification, tag }));
  });
  return socket;
}

/** Sends an INIT and resolves with the answer's Initiate Tag; undefined when none came from there in time. */
export async function askSCTP(
  peer: Pick<Peer, "pid">,
  at: Pick<Addresses, "suffix">,
  to: { readonly ip: string; readonly port: number; readonly fromPort: number },
): Promise<number | undefined> {
  const answered = Promise.withResolvers<number | undefined>();
  const socket = await RawSocket.open(peer, at, protocol, (from, packet) => {
    if (packet.length < 32 || packet.readUInt8(12) !== initAck) return;
    if (from === to.ip && packet.readUInt16BE(2) === to.fromPort) {
      answered.resolve(packet.readUInt32BE(16));
    }
  });
  const timer = setTimeout(answered.resolve, 1500, undefined);
  const { ip, port, fromPort } = to;
  socket.send(
    ip,
    handshake({ chunk: init, fromPort, toPort: port, verification: 0, tag: 0x1000 + fromPort }),
  );
  try {
    return await answered.promise;
  } finally {
    clearTimeout(timer);
    await socket.close();
  }
}
