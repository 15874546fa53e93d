import { type Command, Option } from "commander";

import { configurationFlags, type ConfigurationSources } from "../config/configuration.ts";
import { suggestion } from "../config/nearest.ts";

function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}

/** `-v=2`, as Go's flags are written, arrives with its sign. */
function textOf(value: string): string {
  return value.startsWith("=") ? value.slice(1) : value;
}

function firstLine(text: string): string {
  return text.split("\n", 1)[0] ?? "";
}

/**
 * Adds `--config`, `--config-dir` and every flag of the kubelet and of kube-proxy that the command does not have yet. All
 * but the first two stay out of `--help`: there are 150 of them, and files say the same.
 *
 * @returns What the command line said, once it has been parsed.
 */
export function addConfigurationOptions(command: Command): () => ConfigurationSources {
  const own = new Set(command.options.map((option) => option.attributeName()));
  command.option("--config <file>", "configuration file; may be given more than once", collect);
  command.option(
    "--config-dir <directory>",
    "directory of *.conf files that are laid over the configuration",
  );
  for (const [name, { leaf }] of configurationFlags()) {
    const short = name === "v" ? "-v, " : "";
    const value = leaf.type.name === "boolean" ? "[boolean]" : "<value>";
    const option = new Option(`${short}--${name} ${value}`).hideHelp().argParser(collect);
    if (!own.has(option.attributeName())) command.addOption(option);
  }
  command.addHelpText(
    "after",
    "\nAll flags of the kubelet and of kube-proxy are understood as well; docs/configuration.md lists them.",
  );
  command.configureOutput({
    outputError: (text, write) => {
      const [, name] = /unknown option '--([^'=]+)/.exec(text) ?? [];
      const known = command.options.flatMap(({ long }) => long?.slice(2) ?? []);
      // Its own suggestions know nothing of what is hidden.
      write(name === undefined ? text : `${firstLine(text)}${suggestion(name, known)}\n`);
    },
  });
  return () => given(command, own);
}

/** Values of options that the command had before are whole; ours are collected one by one. */
function given(command: Command, own: ReadonlySet<string>): ConfigurationSources {
  const flags = [...configurationFlags().keys()].flatMap((name) => {
    const option = command.options.find(({ long }) => long === `--${name}`);
    const attribute = option?.attributeName() ?? "";
    if (command.getOptionValueSource(attribute) !== "cli") return [];
    const value: unknown = command.getOptionValue(attribute);
    const values: readonly unknown[] = Array.isArray(value) ? value : [value];
    const texts = values.map((each) => (typeof each === "string" ? textOf(each) : ""));
    return [{ name, texts: own.has(attribute) ? [texts.join(",")] : texts }];
  });
  const { config, configDir } = command.opts<{
    readonly config?: readonly string[];
    readonly configDir?: string;
  }>();
  return { files: config ?? [], directory: configDir, flags };
}
