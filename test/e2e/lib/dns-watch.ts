// Asks ADDRESS for NAME every few milliseconds; says `answered` when answers begin and `silent SINCE` when there were none for
// a while, both with the milliseconds since the epoch.
import { createSocket } from "node:dgram";

import { encode } from "dns-packet";

const [address = "", name = ""] = process.argv.slice(2);
const silenceMs = 50;
const socket = createSocket("udp4");
const message = encode({ type: "query", id: 1, flags: 0x100, questions: [{ name, type: "A" }] });
let answeredAt = 0;
let silent = true;
socket.on("error", () => undefined);
socket.on("message", (reply) => {
  // Without an error, and with an address.
  if (((reply[3] ?? 0) & 0xf) !== 0 || reply[7] === 0) return;
  answeredAt = Date.now();
  if (silent) process.stdout.write(`answered ${answeredAt}\n`);
  silent = false;
});
setInterval(() => {
  socket.send(message, 53, address);
  if (silent || Date.now() - answeredAt < silenceMs) return;
  silent = true;
  process.stdout.write(`silent ${answeredAt}\n`);
}, 3);
