import { type Command, Option } from "commander";

import type { ConfigCheckFlags } from "../commands/config.ts";
import { addConfigurationOptions } from "../configuration-options.ts";
import { upNetworks } from "../node-configuration.ts";
import { list } from "./options.ts";

/** Adds `config` and what is below it. */
export function addConfigCommands(program: Command): void {
  const config = program.command("config").description("the configuration of `run` and `up`");

  const checkCommand = config
    .command("check")
    .description("explain every value of a configuration; takes the flags of `run`")
    .addOption(
      new Option("--for <command>", "which command would get it")
        .choices(["run", "up"])
        .default("run"),
    )
    .option(
      "--service-cidr <cidrs>",
      "of --for up: addresses of Services",
      list,
      upNetworks.serviceCIDRs,
    )
    .addOption(new Option("--output <format>", "how").choices(["text", "json"]).default("text"))
    .option("--all", "show defaults too")
    .option("--strict", "fail when something would have no effect");
  const checkSources = addConfigurationOptions(checkCommand);
  checkCommand.action(async (options: ConfigCheckFlags) => {
    const { checkConfig } = await import("../commands/config.ts");
    process.exitCode = await checkConfig(options, checkSources());
  });

  config
    .command("print-defaults")
    .description("print a configuration that says nothing but defaults")
    .action(async () => {
      const { printDefaults } = await import("../commands/config.ts");
      printDefaults();
    });
}
