import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Argument, Command, Option } from "commander";

import { allCommands, commandTree, summaryOf } from "../../../src/agent/completion/command-tree.ts";
import { completionScript } from "../../../src/agent/completion/completion-script.ts";
import { shells } from "../../../src/agent/completion/shells.ts";

function program(): Command {
  const fish = new Command("fish").description("swims; explained here").version("1");
  const swim = fish.command("swim").description("go somewhere (far)");
  swim.option("-d, --depth <metres>", "how deep", "10");
  swim.option("--map <file>", "where the map is");
  swim.addOption(new Option("--speed <word>", "how fast").choices(["slow", "fast"]));
  swim.addOption(new Option("--ballast [boolean]", "don't sink").hideHelp());
  swim.addArgument(new Argument("<where...>", "to where").choices(["reef", "ship"]));
  fish.command("secret", { hidden: true }).description("not for everybody");
  fish.command("school").description("many fish").command("join").description("swim with it");
  return fish;
}

const tree = commandTree(program());

describe("the command line as data", () => {
  test("commands, options and arguments are what the parser has", () => {
    const [swim] = tree.commands;
    assert.deepEqual(swim?.path, ["fish", "swim"]);
    assert.deepEqual(
      swim?.options.map(({ long, short, hidden, fallback, value }) => [
        long,
        short,
        hidden,
        fallback,
        value?.name,
        value?.kind,
        value?.optional,
      ]),
      [
        ["--depth", "-d", false, "10", "metres", "text", false],
        ["--map", undefined, false, undefined, "file", "file", false],
        ["--speed", undefined, false, undefined, "word", "text", false],
        ["--ballast", undefined, true, undefined, "boolean", "text", true],
        ["--help", "-h", false, undefined, undefined, undefined, undefined],
      ],
    );
    assert.deepEqual(swim?.arguments, [
      { name: "where", optional: false, variadic: true, choices: ["reef", "ship"], kind: "text" },
    ]);
  });

  test("hidden commands stay hidden, and nested ones know their way", () => {
    assert.deepEqual(
      allCommands(tree).map(({ path }) => path.join(" ")),
      ["fish", "fish swim", "fish school", "fish school join"],
    );
  });

  test("a summary is a description without its explanation", () => {
    assert.equal(summaryOf("swims; explained here"), "swims");
    assert.equal(summaryOf("go somewhere (far)"), "go somewhere");
    assert.equal(summaryOf("sha256:HEX of the CA"), "sha256:HEX of the CA");
  });
});

describe("completions", () => {
  for (const shell of shells) {
    test(`${shell} knows every command and option, and no hidden command`, () => {
      const script = completionScript(shell, tree);
      for (const word of ["swim", "school", "join", "depth", "map", "ballast", "reef"]) {
        assert.match(script, new RegExp(`\\b${word}\\b`), word);
      }
      assert.doesNotMatch(script, /secret/);
    });
  }
});
