import { Duplex } from "node:stream";

import type { RawData, WebSocket } from "ws";

function toBuffer(data: RawData): Buffer {
  if (Array.isArray(data)) return Buffer.concat(data);
  return Buffer.isBuffer(data) ? data : Buffer.from(data);
}

/**
 * A WebSocket as a byte stream: messages are pieces of it, and where they begin and end means nothing. What is written
 * in one go leaves as one message.
 */
export function tunnelTransport(socket: WebSocket): Duplex {
  const send = (bytes: Buffer, done: (error?: Error | null) => void): void => {
    if (socket.readyState === socket.OPEN) socket.send(bytes, done);
    else done(new Error("the tunnel is closed"));
  };
  const duplex = new Duplex({
    read: () => {
      socket.resume();
    },
    write: (chunk: Buffer, _encoding, done) => {
      send(chunk, done);
    },
    writev: (chunks, done) => {
      send(Buffer.concat(chunks.map(({ chunk }) => chunk as Buffer)), done);
    },
    final: (done) => {
      socket.close(1000);
      done();
    },
    destroy: (error, done) => {
      // Nobody reads any more, also not the answer to a close.
      if (socket.readyState === socket.CLOSING) socket.resume();
      else socket.terminate();
      done(error);
    },
  });
  socket.on("message", (data) => {
    if (!duplex.destroyed && !duplex.push(toBuffer(data))) socket.pause();
  });
  // Followed by close, which tells all that matters.
  socket.on("error", () => undefined);
  socket.on("close", () => {
    duplex.destroy();
  });
  return duplex;
}
