import assert from "node:assert/strict";

import { type End, walk } from "../../../../src/proxy/trace/walk.ts";
import type { Packet, Ruleset } from "../../../../src/proxy/trace/flow.ts";
import type { Host } from "../../../../src/proxy/trace/host.ts";
import type { Ends, ModelPacket, ModelSettings } from "./oracle.ts";

/** The packet of the model as the simulator takes it. */
export function packetOf(packet: ModelPacket, { family }: Pick<ModelSettings, "family">): Packet {
  return {
    family,
    protocol: packet.protocol,
    source: packet.source,
    sourcePort: 40_000,
    destination: packet.destination,
    destinationPort: packet.port,
    inInterface: packet.inInterface,
  };
}

/** An end in the words of the oracle. */
export function endText(end: End): string {
  switch (end.kind) {
    case "backend":
      return `${end.ip} ${end.port} ${end.masqueraded ? "masqueraded" : "kept"}`;
    case "forwarded":
      return `forwarded ${end.masqueraded ? "masqueraded" : "kept"}`;
    case "rejected":
      return `rejected ${end.how}`;
    case "dropped":
      return "dropped";
    case "host":
      return "host";
  }
}

/** Ends of a packet in the simulator, with their probabilities. */
export function simulate(rules: Ruleset, packet: Packet, host: Host): Ends {
  const ends = new Map<string, number>();
  for (const { end, probability, mark } of walk(rules, packet, host)) {
    const text = endText(end);
    const passes = end.kind === "backend" || end.kind === "forwarded";
    assert.ok(!passes || mark === 0, `leaves with mark ${mark}: ${text}`);
    ends.set(text, (ends.get(text) ?? 0) + probability);
  }
  return ends;
}

/** How far a share may be off: iptables has chances of 31 bits, and nftables draws from powers of two. */
const unfairness = 1 / 1024 + 1e-6;

function sorted(ends: Ends): readonly (readonly [string, number])[] {
  return [...ends].toSorted(([a], [b]) => (a < b ? -1 : 1));
}

export function assertSameEnds(actual: Ends, expected: Ends, what: string): void {
  const shares = sorted(actual).map(([end, chance]) => {
    const due = expected.get(end) ?? 0;
    return [end, Math.abs(chance - due) <= due * unfairness ? due : chance];
  });
  assert.deepEqual(shares, sorted(expected), what);
}
