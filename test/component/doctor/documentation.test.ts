import assert from "node:assert/strict";
import { existsSync, globSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, it } from "node:test";

import { troubleshootingDocument } from "../../../scripts/generate-troubleshooting.ts";
import { allChecks } from "../../../src/agent/doctor/catalogue.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));

describe("docs/troubleshooting.md", () => {
  it("has every finding, as the code has it (npm run generate:docs)", async () => {
    const { current, wanted } = await troubleshootingDocument();
    assert.equal(current, wanted);
  });

  it("names no check that there is not", async () => {
    const { current } = await troubleshootingDocument();
    const ids = new Set(allChecks.map(({ id }) => id));
    const named = [...current.matchAll(/doctor --only ([a-z,-]+)/g)].flatMap(([, list = ""]) =>
      list.split(","),
    );
    assert.deepEqual(
      named.filter((id) => !ids.has(id)),
      [],
    );
  });
});

describe("checks", () => {
  it("have names of their own, and so have their findings", () => {
    const ids = allChecks.map(({ id }) => id);
    assert.equal(new Set(ids).size, ids.length);
    const problems = allChecks.flatMap((check) => Object.keys(check.problems));
    assert.equal(new Set(problems).size, problems.length);
    for (const name of [...ids, ...problems]) assert.match(name, /^[a-z][a-z0-9]*(-[a-z0-9]+)*$/);
  });

  it("say more in pages that are there, and name checks that are there", () => {
    const ids = new Set(allChecks.map(({ id }) => id));
    for (const { id, problems, reference } of allChecks) {
      assert.ok(existsSync(`${root}/${reference}`), `${id}: ${reference}`);
      for (const [code, { remedy }] of Object.entries(problems)) {
        const named = /doctor --only ([a-z,-]+)/.exec(remedy)?.[1]?.split(",") ?? [];
        for (const other of named) assert.ok(ids.has(other), `${code}: ${other}`);
      }
    }
  });

  it("are each made to find what they know of", () => {
    const tests = globSync("test/{component,netns,e2e}/**/doctor*{,/**}", { cwd: root })
      .filter((path) => path.endsWith(".ts"))
      .map((path) => readFileSync(`${root}/${path}`, "utf8"))
      .join("\n");
    const untested = allChecks
      .flatMap((check) => Object.keys(check.problems))
      .filter((code) => !tests.includes(`"${code}"`));
    assert.deepEqual(untested, []);
  });
});
