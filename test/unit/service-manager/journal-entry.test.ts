import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { journalEntry } from "../../../src/agent/service-manager/journal-entry.ts";
import { journalLogger } from "../../../src/agent/service-manager/journal.ts";

describe("an entry of the journal", () => {
  test("has the message, the priority and each field under a name of its own", () => {
    const fields = { component: "pods", podUID: "u-1", durationMs: 12, "odd name": true };
    assert.equal(
      journalEntry("warn", "pod stopped", fields).toString(),
      "MESSAGE=pod stopped\nPRIORITY=4\nSYSLOG_IDENTIFIER=remora\nREMORA_COMPONENT=pods\n" +
        "REMORA_POD_UID=u-1\nREMORA_DURATION_MS=12\nREMORA_ODD_NAME=true\n",
    );
  });

  test("leaves out what is not known", () => {
    assert.doesNotMatch(journalEntry("info", "m", { pod: undefined }).toString(), /POD/);
  });

  test("cannot be made to say more by a text with several lines", () => {
    const entry = journalEntry("error", "m", { error: "a\nPRIORITY=0\n" });
    const at = entry.indexOf("REMORA_ERROR\n") + "REMORA_ERROR\n".length;
    assert.equal(entry.readBigUInt64LE(at), 13n);
    assert.equal(entry.subarray(at + 8).toString(), "a\nPRIORITY=0\n\n");
  });
});

describe("a logger of the journal", () => {
  const written: string[] = [];
  const entries: string[] = [];
  let takes = true;
  const logger = journalLogger({
    journal: {
      send: (entry) => {
        if (takes) entries.push(entry.toString());
        return takes;
      },
    },
    text: (_level, msg, fields) => `${msg} ${JSON.stringify(fields)}`,
    write: (line) => void written.push(line),
    now: () => 0,
    level: "info",
  }).child({ component: "dns" });

  test("writes lines with their priority when no entry is taken", () => {
    takes = false;
    logger.log("error", "broken", { code: "E" });
    logger.log("debug", "dropped");
    assert.deepEqual(written, ['<3>broken {"component":"dns","code":"E"}\n']);
  });

  test("writes nothing else when it is", () => {
    takes = true;
    logger.log("info", "fine");
    assert.equal(written.length, 1);
    assert.match(entries.join(), /^MESSAGE=fine .*\nPRIORITY=6\n.*\nREMORA_COMPONENT=dns\n$/);
  });
});
