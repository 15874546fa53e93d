import type { Argument, Command, Option } from "commander";

/** What may follow an option or stand as an argument. */
export interface ValueNode {
  /** As the help calls it: `file`. */
  readonly name: string;
  readonly optional: boolean;
  readonly variadic: boolean;
  /** The words that are understood, when only some are. */
  readonly choices: readonly string[];
  /** What a shell should offer besides `choices`. */
  readonly kind: "file" | "directory" | "text";
}

/** An option of a command. */
export interface OptionNode {
  /** With its dashes. */
  readonly long: string;
  readonly short: string | undefined;
  readonly description: string;
  /** Left out of --help: flags of the kubelet and of kube-proxy. */
  readonly hidden: boolean;
  /** undefined: it takes none. */
  readonly value: ValueNode | undefined;
  /** What it is when it is not given, as text; undefined: nothing, or nothing that can be said. */
  readonly fallback: string | undefined;
}

/** A command with everything below it. */
export interface CommandNode {
  /** From the program's name on: remora, token, create. */
  readonly path: readonly string[];
  readonly description: string;
  readonly options: readonly OptionNode[];
  readonly arguments: readonly ValueNode[];
  readonly commands: readonly CommandNode[];
}

function kindOf(name: string): ValueNode["kind"] {
  if (/director|dir$/.test(name)) return "directory";
  return /file|path|value/.test(name) ? "file" : "text";
}

function valueOf({
  flags,
  required,
  optional,
  variadic,
  argChoices,
}: Option): ValueNode | undefined {
  if (!required && !optional) return undefined;
  const name = /[<[]([^\]>.]+)/.exec(flags)?.[1] ?? "value";
  return { name, optional, variadic, choices: argChoices ?? [], kind: kindOf(name) };
}

function fallbackOf({ defaultValue }: Option): string | undefined {
  const value: unknown = defaultValue;
  if (Array.isArray(value)) return value.join(",");
  return typeof value === "string" || typeof value === "number" ? `${value}` : undefined;
}

function optionNode(option: Option): OptionNode {
  const { long, short, description, hidden } = option;
  return {
    long: long ?? "",
    short,
    description,
    hidden,
    value: valueOf(option),
    fallback: fallbackOf(option),
  };
}

function argumentNode(argument: Argument): ValueNode {
  const { variadic, required, argChoices } = argument;
  const name = argument.name();
  return { name, optional: !required, variadic, choices: argChoices ?? [], kind: kindOf(name) };
}

const help: OptionNode = {
  long: "--help",
  short: "-h",
  description: "display help for command",
  hidden: false,
  value: undefined,
  fallback: undefined,
};

/**
 * The command line as plain data, for manual pages and completions. Hidden commands are left out, hidden options are not.
 *
 * @param above The path of the command that it stands in.
 */
export function commandTree(command: Command, above: readonly string[] = []): CommandNode {
  const path = [...above, command.name()];
  const visible = new Set(command.createHelp().visibleCommands(command));
  return {
    path,
    description: command.description(),
    options: [...command.options.map((option) => optionNode(option)), help],
    arguments: command.registeredArguments.map((argument) => argumentNode(argument)),
    commands: command.commands
      .filter((below) => visible.has(below))
      .map((below) => commandTree(below, path)),
  };
}

/** A description without what explains it: as much as fits beside a name. */
export function summaryOf(description: string): string {
  return description.split(/[:;=,] | \(/)[0] ?? "";
}

/** A command and all below it, it first. */
export function allCommands(node: CommandNode): readonly CommandNode[] {
  return [node, ...node.commands.flatMap((below) => allCommands(below))];
}
