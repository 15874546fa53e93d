// Asks ADDRESS for NAME again and again, as programs do: each question up to three times, and a second for each time, over
// udp or tcp (third argument). SIGTERM has it print { asked, answered, retried } and end.
import { encode } from "dns-packet";

import { askTCP, askUDP } from "../../../src/dns/exchange.ts";

const [address = "", name = "", transport = "udp"] = process.argv.slice(2);
const ask = transport === "tcp" ? askTCP : askUDP;
const figures = { asked: 0, answered: 0, retried: 0 };
const stop = new AbortController();
process.on("SIGTERM", () => stop.abort());

async function answered(id: number): Promise<boolean> {
  const message = encode({ type: "query", id, flags: 0x100, questions: [{ name, type: "A" }] });
  const outgoing = { message, id, question: message.subarray(12) };
  try {
    const reply = await ask({ address, port: 53 }, outgoing, AbortSignal.timeout(1000));
    // No error, and an address.
    return ((reply[3] ?? 0) & 0xf) === 0 && reply[7] !== 0;
  } catch {
    return false;
  }
}

while (!stop.signal.aborted) {
  figures.asked += 1;
  for (let turn = 0; turn < 3; turn += 1) {
    if (turn > 0) figures.retried += 1;
    if (!(await answered((figures.asked * 3 + turn) & 0xffff))) continue;
    figures.answered += 1;
    break;
  }
  await new Promise((resolve) => setTimeout(resolve, 20));
}
process.stdout.write(`${JSON.stringify(figures)}\n`);
