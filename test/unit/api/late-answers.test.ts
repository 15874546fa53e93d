import assert from "node:assert/strict";
import { channel } from "node:diagnostics_channel";
import { EventEmitter } from "node:events";
import { test } from "node:test";

import { endLateAnswers } from "../../../src/api/late-answers.ts";

class Stream extends EventEmitter {
  readonly sentHeaders: object | undefined;
  destroyed = false;

  constructor(sentHeaders: object | undefined) {
    super();
    this.sentHeaders = sentHeaders;
  }

  destroy(): void {
    this.destroyed = true;
  }
}

test("a stream that nobody asked for is ended, and its errors end nothing; others are left alone", async () => {
  endLateAnswers();
  const created = channel("http2.client.stream.created");
  const asked = new Stream({ ":path": "/" });
  const late = new Stream(undefined);
  created.publish({ stream: asked });
  created.publish({ stream: late });
  late.emit("error", new Error("the connection broke"));
  await Promise.resolve();
  assert.equal(late.destroyed, true);
  assert.equal(late.listenerCount("error"), 1);
  assert.equal(asked.destroyed, false);
  assert.equal(asked.listenerCount("error"), 0);
});
