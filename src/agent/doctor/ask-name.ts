import { askUDP } from "../../dns/exchange.ts";
import { rcodeOf } from "../../dns/upstream-message.ts";
import { outgoingQuestion } from "../../dns/upstream-question.ts";
import { encodeName } from "../../dns/wire.ts";
import { errorCode, errorMessage, isAbort } from "../../lib/errors.ts";

/** What came of a question to a name server. */
export type NameAnswer =
  | { readonly kind: "answered"; readonly rcode: number; readonly records: number }
  | { readonly kind: "silent"; readonly text: string };

const patienceMs = 2000;
const recursion = 0x0100;

/**
 * Asks one name server for the addresses of a name, twice where the first datagram got no answer.
 *
 * @throws the signal's reason.
 */
export async function askName(
  address: string,
  name: string,
  options: { readonly random: () => number; readonly port?: number },
  signal: AbortSignal,
): Promise<NameAnswer> {
  const question = encodeName(name, "A");
  const query = { question, passedFlags: recursion, edns: undefined };
  let text = "";
  for (let attempt = 0; attempt < 2; attempt += 1) {
    const outgoing = outgoingQuestion(query, { edns: false, mixedCase: false }, options.random);
    const limited = AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]);
    try {
      const reply = await askUDP({ address, port: options.port ?? 53 }, outgoing, limited);
      return { kind: "answered", rcode: rcodeOf(reply), records: reply.readUInt16BE(6) };
    } catch (error) {
      signal.throwIfAborted();
      text = isAbort(error)
        ? `no answer within ${patienceMs / 1000} s`
        : (errorCode(error) ?? errorMessage(error));
    }
  }
  return { kind: "silent", text };
}
