import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import * as fc from "fast-check";

import { type Answer, NodeUnderTest } from "./node-under-test.ts";

/** Which right a page's content belongs to, whatever the path looked like. */
function contentOf({ status, body, headers }: Answer): string {
  if (status !== 200) return "nothing";
  if (body.startsWith('{"kind":"PodList"')) return "pods";
  if (body.startsWith('{"kubeletconfig"')) return "configz";
  if (body.startsWith("\nkubelet statusz")) return "statusz";
  if (body === "ok" || body.includes("healthz check passed")) return "healthz";
  if (headers["content-type"]?.includes("version=0.0.4") === true) return "metrics";
  return `something else: ${body.slice(0, 80)}`;
}

const pieces =
  "pods configz statusz healthz metrics slis cadvisor runningpods exec run ns web c . .. %2e %2e%2e .%2E %2f %2F.. %5c \\" +
  " %00 % %zz %c0%af %25%32%65 ; ;x=y ? ?verbose %3f # %23 ~ %70ods met%72ics PODS %20 \u00e9 [ https:// node @ :10250";

const path = fc
  .array(
    fc.tuple(
      fc.constantFrom("/", "/", "/", "//", ""),
      fc.constantFrom("", " ", ...pieces.split(" ")),
    ),
    {
      minLength: 1,
      maxLength: 7,
    },
  )
  .map((parts) => `/${parts.flat().join("")}`.replaceAll(/[^\x21-\x7e]/g, "%20"));

describe("whatever a path looks like", () => {
  const node = new NodeUnderTest();
  before(() => node.start());
  after(() => node.stop());

  for (const right of ["pods", "configz", "statusz", "healthz", "metrics"]) {
    test(`who may only see ${right} never sees anything else`, async () => {
      const user = `only-${right}`;
      node.reviews.allowed.add(`${user} get ${right}`);
      const seen = new Set<string>();
      // On failure the seed and the smallest path are part of the message.
      await fc.assert(
        fc.asyncProperty(
          path,
          fc.constantFrom("GET", "HEAD", "POST", "OPTIONS"),
          async (to, method) => {
            const answer = await node.get(to, { token: `good-${user}` }, { method });
            const content = contentOf(answer);
            seen.add(content);
            assert(content === "nothing" || content === right, `${method} ${to}: ${content}`);
            assert([200, 400, 403, 404, 405].includes(answer.status), `${to}: ${answer.status}`);
          },
        ),
        { numRuns: 250, plugins: [fc.interruptAfterTimeLimit(5_000)] },
      );
      // A property that no path ever met would prove nothing.
      const plain = await node.get(`/${right}`, { token: `good-${user}` });
      assert.equal(contentOf(plain), right);
      assert(seen.has("nothing"));
    });
  }

  test("who may everything gets an answer to everything", async () => {
    await fc.assert(
      fc.asyncProperty(path, async (to) => {
        const { status } = await node.get(to, node.admin);
        assert([200, 400, 404, 405, 501].includes(status), `${to}: ${status}`);
      }),
      { numRuns: 250, plugins: [fc.interruptAfterTimeLimit(5_000)] },
    );
  });
});
