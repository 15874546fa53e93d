import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { encode } from "dns-packet";

import { askUDP } from "../../src/dns/exchange.ts";
import { insideOwnNamespace } from "./namespace.ts";

const message = encode({ type: "query", id: 7, questions: [{ name: "x.test", type: "A" }] });
const outgoing = { message, id: 7, question: message.subarray(12) };

if (insideOwnNamespace(import.meta.filename)) {
  describe("a machine without a network", () => {
    for (const address of ["192.0.2.53", "2001:db8::53"]) {
      it(`is told that ${address} cannot be reached`, async () => {
        const asked = askUDP({ address, port: 53 }, outgoing, AbortSignal.timeout(8000));
        await assert.rejects(asked, { code: /^(ENETUNREACH|EADDRNOTAVAIL)$/ });
      });
    }
  });
}
