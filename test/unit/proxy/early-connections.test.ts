import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { silentLogger } from "../../../src/lib/log.ts";
import { parseFlow } from "../../../src/netfilter/conntrack.ts";
import type { FlowSelection, FlowTable, StaleFlows } from "../../../src/proxy/conntrack.ts";
import { freeEarlyConnections } from "../../../src/proxy/early-connections.ts";

const { signal } = new AbortController();

function line(to: string, port: number, from: string, fromPort: number): string {
  return `tcp      6 119 SYN_SENT src=10.244.0.5 dst=${to} sport=45102 dport=${port} [UNREPLIED] src=${from} dst=10.244.0.5 sport=${fromPort} dport=45102 mark=0 use=1`;
}

class Table implements FlowTable {
  readonly asked: FlowSelection[] = [];
  readonly deleted: StaleFlows[] = [];
  readonly #lines: readonly string[];

  constructor(lines: readonly string[]) {
    this.#lines = lines;
  }

  readonly list: FlowTable["list"] = (selection, onFlow) => {
    this.asked.push(selection);
    for (const text of this.#lines) {
      const flow = parseFlow(text);
      if (flow !== undefined) onFlow(flow);
    }
    return Promise.resolve(true);
  };

  readonly delete: FlowTable["delete"] = (flows) => {
    this.deleted.push(...flows);
    return Promise.resolve(flows.length);
  };
}

function free(table: FlowTable): Promise<number> {
  const isClusterIP = (ip: string): boolean => ip.startsWith("10.96.");
  return freeEarlyConnections({ family: "IPv4", isClusterIP, logger: silentLogger, table }, signal);
}

describe("connections that were begun before there were rules", () => {
  it("are forgotten when they go to a Service as they were sent, each target once", async () => {
    const table = new Table([
      line("10.96.0.5", 80, "10.96.0.5", 80),
      line("10.96.0.5", 80, "10.96.0.5", 80),
      line("10.96.0.5", 443, "10.244.0.9", 8443),
      line("192.0.2.1", 80, "192.0.2.1", 80),
      line("10.96.0.6", 80, "10.96.0.6", 80),
    ]);
    assert.equal(await free(table), 2);
    assert.deepEqual(table.asked, [{ family: "IPv4", protocol: "tcp", state: "SYN_SENT" }]);
    assert.deepEqual(
      table.deleted.map(({ protocol, vip, port, from }) => [protocol, vip, port, from]),
      [
        ["tcp", "10.96.0.5", 80, { ip: "10.96.0.5", port: 80 }],
        ["tcp", "10.96.0.6", 80, { ip: "10.96.0.6", port: 80 }],
      ],
    );
  });

  it("are left alone when there are none, without the tool, and when it fails", async () => {
    const table = new Table([]);
    assert.equal(await free(table), 0);
    assert.deepEqual(table.deleted, []);
    const none = { list: () => Promise.resolve(false), delete: table.delete };
    assert.equal(await free(none), 0);
    const broken = { list: () => Promise.reject(new Error("boom")), delete: table.delete };
    assert.equal(await free(broken), 0);
  });
});
