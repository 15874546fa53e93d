// Asks a name server for the addresses of a name: ADDRESS NAME udp|tcp. Prints them, or an error's code.
import { encode, decode } from "dns-packet";

import { askTCP, askUDP } from "../../src/dns/exchange.ts";

const [address = "", name = "", transport = "udp"] = process.argv.slice(2);
const message = encode({ type: "query", id: 5, questions: [{ name, type: "A" }] });
const outgoing = { message, id: 5, question: message.subarray(12) };
const ask = transport === "tcp" ? askTCP : askUDP;
try {
  const reply = decode(await ask({ address, port: 53 }, outgoing, AbortSignal.timeout(1500)));
  const found = (reply.answers ?? []).flatMap((answer) =>
    answer.type === "A" ? [answer.data] : [],
  );
  process.stdout.write(`${found.join(" ")}\n`);
} catch (error) {
  process.stdout.write(`${String(error)}\n`);
}
