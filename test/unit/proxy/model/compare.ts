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

function rounded(ends: Ends): [string, number][] {
  // iptables has chances of 31 bits.
  return [...ends]
    .map(([end, chance]): [string, number] => [end, Math.round(chance * 1e6) / 1e6])
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
}

export function assertSameEnds(actual: Ends, expected: Ends, what: string): void {
  assert.deepEqual(rounded(actual), rounded(expected), what);
}
