import assert from "node:assert/strict";
import { stat } from "node:fs/promises";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { eventually, Machine, type MachineProcess, root } from "./lib/machine.ts";
import { cannotRun, remoraDown, remoraUp, startRemora } from "./lib/remora.ts";

const skip = cannotRun();
const ready = /^Next: kubectl .*get nodes$/m;

function words(watch: MachineProcess): readonly string[] {
  return watch.output().trim().split("\n");
}

describe(
  "cluster DNS while the agent starts again",
  { skip: skip ?? false, timeout: 180_000 },
  () => {
    test("answers until the agent has ended, and before anything else is there", async (t) => {
      await using machine = await Machine.start("dnsr");
      let remora = await remoraUp(machine);
      const watch = machine.spawn([
        process.execPath,
        `${root}/test/e2e/lib/dns-watch.ts`,
        "10.96.0.10",
        "kubernetes.default.svc.cluster.local",
      ]);
      const said = (count: number, what: string): Promise<string> =>
        eventually(
          async () => {
            const line = words(watch)[count - 1];
            return line?.startsWith(what) === true ? line : undefined;
          },
          { timeoutMs: 20_000, describe: () => `${watch.output()}\n${remora.output()}` },
        );
      await said(1, "answered");
      // Written a moment after the last change.
      const records = machine.path("/var/lib/remora/kubelet/dns/records");
      await eventually(() => stat(records).catch(() => undefined), {
        timeoutMs: 20_000,
        describe: () => remora.output(),
      });
      let line = 1;
      for (const signal of ["TERM", "KILL"] as const) {
        await remora.signal(signal);
        await remora.exited;
        const endedAt = Date.now();
        const [, lastAnswer = ""] = (await said((line += 1), "silent")).split(" ");
        const startedAt = Date.now();
        remora = startRemora(machine);
        const [, firstAnswer = ""] = (await said((line += 1), "answered")).split(" ");
        assert.doesNotMatch(remora.output(), ready, "names have answers before the node is ready");
        t.diagnostic(
          `${signal}: last answer ${endedAt - Number(lastAnswer)} ms before the end was seen, first ${Number(firstAnswer) - startedAt} ms after the start`,
        );
        await eventually(async () => (ready.test(remora.output()) ? true : undefined), {
          timeoutMs: 60_000,
          describe: () => remora.output(),
        });
        // Nobody noticed that the agent took the thread over: what is lost would have been said by now.
        await sleep(3000);
        assert.equal(words(watch).length, line, watch.output());
      }
      await watch.signal("KILL");
      await watch.exited;
      await remora.signal("TERM");
      await remora.exited;
      assert.match(await remoraDown(machine), /nothing is left/);
    });
  },
);
