import assert from "node:assert/strict";
import { describe, it } from "node:test";

import {
  type Check,
  defineCheck,
  judged,
  skipped,
  unknown,
} from "../../../src/agent/doctor/check.ts";
import { machineAt } from "../../../src/agent/doctor/machine.ts";
import { doctorReport, exitCodeOf, reportLines } from "../../../src/agent/doctor/report.ts";
import { type CheckResult, resultOf, runChecks } from "../../../src/agent/doctor/run-checks.ts";
import type { Site } from "../../../src/agent/doctor/site.ts";
import { systemClock } from "../../../src/lib/clock.ts";

const site: Site = {
  mode: "run",
  pid: 812,
  used: true,
  stateDir: "/var/lib/kubelet",
  rootDir: "/var/lib/kubelet",
  nodeName: "edge-7",
  dockerSocket: "/var/run/docker.sock",
  metricsAddress: "127.0.0.1:10249",
  identities: [],
  facts: undefined,
  factsMissing: "",
  bridge: "remora0",
  clusterCIDRs: [],
  serviceCIDRs: [],
  dns: undefined,
};
const machine = machineAt({
  clock: systemClock,
  root: "/nonexistent",
  isRoot: true,
  random: () => 0,
  site,
});

function check(id: string, look: Check["look"], options: Partial<Check> = {}): Check {
  const problems = {
    "all-wrong": { level: "error", means: "m", cause: "Somebody did it.", remedy: "undo it" },
    "half-wrong": { level: "warning", means: "m", cause: "It was so.", remedy: "wait" },
  } as const;
  const about = {
    id,
    title: `Title of ${id}`,
    group: "machine",
    looks: "it",
    reference: "x",
  } as const;
  return { ...about, problems, look, ...options };
}

const wrong = check("wrong", () =>
  Promise.resolve(judged("", [{ problem: "all-wrong", text: "it is wrong", remedy: "fix 7" }])),
);
const half = check("half", () =>
  Promise.resolve(judged("", [{ problem: "half-wrong", text: "hm" }])),
);
const fine = check("fine", () => Promise.resolve(judged("it is there", [])));
const none = check("none", () => Promise.resolve(skipped("there is none")), { group: "cluster" });
const open = check("open", () => Promise.resolve(unknown("nobody knows")), { group: "cluster" });

async function examined(...checks: readonly Check[]) {
  const results = await runChecks(checks, machine, new AbortController().signal);
  return doctorReport(results, site, {
    time: "2026-01-01T00:00:00.000Z",
    version: "1.2.3",
    asRoot: true,
  });
}

describe("the report", () => {
  it("says what is wrong, worst first, and is quiet about what is fine", async () => {
    const report = await examined(fine, half, wrong, none, open);
    assert.deepEqual(reportLines(report, false), [
      "node edge-7, agent pid 812 (remora run), /var/lib/kubelet",
      "",
      "machine:",
      "ERROR    it is wrong [all-wrong]",
      "         cause:  Somebody did it.",
      "         remedy: fix 7",
      "warning  hm [half-wrong]",
      "         cause:  It was so.",
      "         remedy: wait",
      "",
      "cluster:",
      "unknown  Title of open (open): nobody knows",
      "",
      "5 checks: 1 error, 1 warning, 1 could not be judged, 1 fine, 1 do not apply",
    ]);
  });

  it("sends who is not root for root's eyes", async () => {
    const report = { ...(await examined(open)), asRoot: false };
    assert.ok(reportLines(report, false).includes("use sudo: some things are told to root alone"));
  });

  it("tells everything on demand", async () => {
    const lines = reportLines(await examined(fine, none), true);
    assert.ok(lines.includes("ok       Title of fine (fine): it is there"));
    assert.ok(lines.includes("skipped  Title of none (none): there is none"));
  });

  it("ends with a code that scripts can act on", async () => {
    assert.equal(exitCodeOf(await examined(fine, none)), 0);
    assert.equal(exitCodeOf(await examined(fine, half)), 0);
    assert.equal(exitCodeOf(await examined(open, half)), 2);
    assert.equal(exitCodeOf(await examined(open, wrong)), 1);
  });

  it("breaks a long cause into lines, and never a command", () => {
    const cause = "a few words and again ".repeat(12).trim();
    const remedy = "echo and again ".repeat(12).trim();
    const problems = { long: { level: "error", means: "m", cause, remedy } } as const;
    const long = check("long", () => Promise.resolve(skipped("")), { problems });
    const result = resultOf(long, judged("", [{ problem: "long", text: "t" }]));
    const lines = reportLines(
      doctorReport([result], site, { time: "", version: "", asRoot: true }),
      false,
    );
    for (const line of lines.filter((one) => !one.includes("remedy")))
      assert.ok(line.length <= 110);
    assert.ok(lines.some((line) => line.endsWith(remedy)));
  });
});

describe("running checks", () => {
  const said = (results: readonly CheckResult[]): readonly string[] =>
    results.map(({ status, seen }) => `${status} ${seen}`);

  it("one that throws, and one that hears no signal and hangs, could not judge; the others do", async () => {
    const throws = check("throws", () => Promise.reject(new Error("no such disk")));
    const hangs = check("hangs", () => Promise.withResolvers<never>().promise, { deadlineMs: 20 });
    const results = await runChecks([throws, hangs, fine], machine, new AbortController().signal);
    assert.deepEqual(said(results), [
      "unknown no such disk",
      "unknown no answer within 0 s",
      "ok it is there",
    ]);
  });

  it("ends when it is told to", async () => {
    const stop = new AbortController();
    const hangs = check("hangs", () => Promise.withResolvers<never>().promise);
    const running = runChecks([hangs, fine], machine, stop.signal);
    stop.abort(new Error("stopped"));
    await assert.rejects(running, /stopped/);
  });

  it("a finding that the check does not know is a bug, not a finding", () => {
    const result = (): CheckResult =>
      resultOf(fine, judged("", [{ problem: "unheard", text: "" }]));
    assert.throws(result, /fine knows no unheard/);
  });

  it("collecting and judging are apart", async () => {
    const both = defineCheck({
      id: "both",
      title: "Both",
      group: "machine",
      looks: "",
      reference: "",
      problems: {},
      collect: () => Promise.resolve(41),
      judge: (facts) => judged(String(facts + 1), []),
    });
    assert.deepEqual(both.judge(1), judged("2", []));
    assert.deepEqual(said(await runChecks([both], machine, new AbortController().signal)), [
      "ok 42",
    ]);
  });
});
