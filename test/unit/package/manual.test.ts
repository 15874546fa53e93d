import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { commandPage, flagsPage, roffText } from "../../../scripts/package/manual.ts";
import { remoraProgram } from "../../../src/agent/cli/program.ts";
import { allCommands, commandTree } from "../../../src/agent/completion/command-tree.ts";
import { configurationFlags } from "../../../src/config/configuration.ts";

const facts = { version: "1.2.3", date: "2026-01-02" };
const program = commandTree(remoraProgram());

describe("manual pages", () => {
  test("no character of a text means anything to roff", () => {
    assert.equal(roffText(".hidden"), "\\&.hidden");
    assert.equal(roffText("'quoted'\n.x"), "\\&'quoted'\n\\&.x");
    assert.equal(roffText("a\\b -c"), "a\\eb \\-c");
    assert.equal(roffText("as `remora up` does"), "as \\fBremora up\\fR does");
  });

  test("the program's page names every command, and each command has its page", () => {
    const page = commandPage(program, allCommands(program), facts);
    assert.match(page, /^\.TH "REMORA" 1 "2026-01-02" "Remora 1\.2\.3" "Remora"$/m);
    assert.ok(program.commands.length > 5);
    for (const { path } of program.commands) {
      assert.ok(
        page.includes(`\n\\fB${path.map((word) => roffText(word)).join("\\-")}\\fR(1)\n`),
        path.join(" "),
      );
    }
  });

  test("a command's page has all options of it and of what is below it, but for hidden ones", () => {
    for (const command of program.commands) {
      const all = allCommands(command);
      const page = commandPage(command, all, facts);
      for (const { long, hidden } of all.flatMap(({ options }) => options)) {
        const shown = page.includes(`\\fB${roffText(long)}\\fR`);
        const visible = all.some(({ options }) =>
          options.some((o) => o.long === long && !o.hidden),
        );
        assert.equal(shown, visible, `${command.path.join(" ")} ${long} (hidden: ${hidden})`);
      }
    }
  });

  test("a page says what an option is when it is not given, and which words it knows", () => {
    const run = program.commands.find(({ path }) => path[1] === "run") ?? program;
    const page = commandPage(run, allCommands(run), facts);
    assert.match(
      page,
      /^\\fB\\-\\-root\\-dir\\fR \\fIpath\\fR\n.*Default: \\fB\/var\/lib\/kubelet/m,
    );
    assert.match(page, /One of \\fBdebug\\fR, \\fBinfo\\fR, \\fBwarn\\fR, \\fBerror\\fR\./);
    assert.match(page, /^sha256:HEX of/m, "what is typed as it stands has no capital");
    assert.match(page, /\\fBremora\\-flags\\fR\(7\)/);
  });

  test("the kubelet's and kube-proxy's flags are on a page of their own", () => {
    const page = flagsPage(configurationFlags(), facts);
    for (const name of configurationFlags().keys()) {
      assert.ok(page.includes(`\n\\fB${roffText(`--${name}`)}\\fR `), name);
    }
    assert.match(page, /\\fBmaxPods\\fR of KubeletConfiguration\. Default: \\fB110\\fR\./);
    assert.match(page, /Has no effect: /);
    assert.match(page, /Another value is refused: /);
  });
});
