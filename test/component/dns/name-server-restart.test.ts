import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";

import { decode, encode } from "dns-packet";

import { askUDP } from "../../../src/dns/exchange.ts";
import type { RecordsUpdate } from "../../../src/dns/types.ts";
import { freePort } from "../../fakes/name-server.ts";
import { inTemporary } from "../../fakes/temporary.ts";
import { name, oneService, RealThread } from "./real-thread.ts";

const last = "cluster names are answered from the last records until there are others";

/** With a records file. */
class Running extends RealThread {
  constructor(port: number, recordsFile: string, tell?: RecordsUpdate) {
    super(port, { recordsFile }, tell);
  }

  /** The address of the only Service, or the rcode. */
  async ask(): Promise<string> {
    await this.listening;
    const message = encode({ type: "query", id: 3, questions: [{ name, type: "A" }] });
    const outgoing = { message, id: 3, question: message.subarray(12) };
    const server = { address: "127.0.0.1", port: this.port };
    const reply = await askUDP(server, outgoing, AbortSignal.timeout(5000));
    const [answer] = decode(reply).answers ?? [];
    return answer?.type === "A" ? answer.data : `rcode ${reply.readUInt16BE(2) & 0xf}`;
  }

  async until(expected: string): Promise<void> {
    for (let turn = 0; (await this.ask()) !== expected; turn += 1) {
      assert.ok(turn < 1000, `never ${expected}`);
    }
  }

  has(msg: string): boolean {
    return this.logged.some((line) => line.msg === msg);
  }
}

describe("a restart while the API server cannot be reached", () => {
  it("cluster names are answered from the last records, until there are others", () =>
    inTemporary(async (directory) => {
      const [port, file] = [await freePort(), join(directory, "records")];
      {
        await using first = new Running(port, file);
        assert.equal(await first.ask(), "rcode 2", "there never were any");
        first.tell(oneService("10.96.0.7"));
        await first.until("10.96.0.7");
        assert.equal(first.has(last), false);
      }
      await using second = new Running(port, file);
      assert.equal(await second.ask(), "10.96.0.7");
      assert.ok(second.has(last));
      second.tell(oneService("10.96.0.8"));
      await second.until("10.96.0.8");
    }));

  it("damaged records are worse than none", () =>
    inTemporary(async (directory) => {
      const [port, file] = [await freePort(), join(directory, "records")];
      {
        await using first = new Running(port, file, oneService("10.96.0.7"));
        assert.equal(await first.ask(), "10.96.0.7");
      }
      const text = await readFile(file, "utf8");
      await writeFile(file, text.replace("10.96.0.7", "10.96.0.9"));
      await using second = new Running(port, file);
      assert.equal(await second.ask(), "rcode 2");
      assert.ok(second.has("the last records of cluster DNS cannot be used"));
    }));

  it("what is told before they are read stands", () =>
    inTemporary(async (directory) => {
      const [port, file] = [await freePort(), join(directory, "records")];
      {
        await using first = new Running(port, file, oneService("10.96.0.7"));
        assert.equal(await first.ask(), "10.96.0.7");
      }
      await using second = new Running(port, file, oneService("10.96.0.8"));
      assert.equal(await second.ask(), "10.96.0.8");
      for (let turn = 0; turn < 20; turn += 1) assert.equal(await second.ask(), "10.96.0.8");
    }));
});
