// Asks ADDRESS for NAME every few milliseconds. Says `answered` when answers begin, `silent SINCE` when a row of questions had
// none, and `lost` for each question without an answer while those behind it have theirs; all with the milliseconds since the
// epoch. Counted in questions, not in time: a busy machine answers late, and only a socket that was closed loses them.
import { createSocket } from "node:dgram";

import { encode } from "dns-packet";

const [address = "", name = ""] = process.argv.slice(2);
const silenceQuestions = 200;
const patienceQuestions = 400;
const socket = createSocket("udp4");
/** When those were asked that have no answer yet, by their ids, the oldest first. */
const asked = new Map<number, { readonly at: number; readonly number: number }>();
let answeredAt = 0;
let unanswered = 0;
let number = 0;
let silent = true;
socket.on("error", () => undefined);
socket.on("message", (reply) => {
  // Without an error, and with an address.
  if (((reply[3] ?? 0) & 0xf) !== 0 || reply[7] === 0) return;
  asked.delete(reply.readUInt16BE(0));
  answeredAt = Date.now();
  unanswered = 0;
  if (silent) process.stdout.write(`answered ${answeredAt}\n`);
  silent = false;
});
setInterval(() => {
  number += 1;
  const id = number % 65_536;
  socket.send(
    encode({ type: "query", id, flags: 0x100, questions: [{ name, type: "A" }] }),
    53,
    address,
  );
  if (silent) return;
  asked.set(id, { at: Date.now(), number });
  unanswered += 1;
  if (unanswered >= silenceQuestions) {
    silent = true;
    asked.clear();
    process.stdout.write(`silent ${answeredAt}\n`);
    return;
  }
  for (const [old, question] of asked) {
    if (question.number > number - patienceQuestions) break;
    asked.delete(old);
    process.stdout.write(`lost ${question.at}\n`);
  }
}, 3);
