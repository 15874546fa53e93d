import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { jsonLogger, textLogger } from "../../../src/lib/log.ts";

function lines(create: typeof jsonLogger): string[] {
  const out: string[] = [];
  const logger = create({ write: (line) => out.push(line), now: () => 0, level: "info" }).child({
    component: "pods",
  });
  logger.log("debug", "not shown");
  logger.log("warn", "pod waits", { pod: "default/web", error: 'no such "image"', attempt: 2 });
  return out;
}

describe("log lines", () => {
  test("are one JSON object each for machines", () => {
    assert.deepEqual(
      lines(jsonLogger).map((line) => JSON.parse(line) as unknown),
      [
        {
          ts: "1970-01-01T00:00:00.000Z",
          level: "warn",
          msg: "pod waits",
          component: "pods",
          pod: "default/web",
          error: 'no such "image"',
          attempt: 2,
        },
      ],
    );
  });

  test("are one readable line each for people", () => {
    assert.deepEqual(lines(textLogger), [
      'warn  pod waits  component=pods  pod=default/web  error="no such \\"image\\""  attempt=2\n',
    ]);
  });
});
