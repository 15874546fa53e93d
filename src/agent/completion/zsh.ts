import {
  allCommands,
  type CommandNode,
  type OptionNode,
  summaryOf,
  type ValueNode,
} from "./command-tree.ts";

/** A text for the inside of single quotes, in which colons and brackets mean nothing to _arguments. */
function plain(text: string): string {
  return text
    .replaceAll("\\", "\\\\")
    .replaceAll(/[[\]:]/g, "\\$&")
    .replaceAll("'", "'\\''");
}

function action({ name, choices, kind }: ValueNode): string {
  const what = {
    file: "_files",
    directory: "_files -/",
    text: " ",
  }[kind];
  return `:${plain(name)}:${choices.length > 0 ? `(${choices.join(" ")})` : what}`;
}

function optionSpecs({ long, short, description, value }: OptionNode): readonly string[] {
  const text = `[${plain(summaryOf(description) || "flag of the kubelet or of kube-proxy")}]`;
  // An option whose value may be left out has it behind an equals sign.
  const sign = value === undefined ? "" : value.optional ? "=-" : "=";
  const behind = value === undefined ? "" : `${value.optional ? ":" : ""}${action(value)}`;
  const many = long === "--config" ? "*" : "";
  return [
    `'${many}${long}${sign}${text}${behind}'`,
    ...(short === undefined ? [] : [`'${many}${short}${text}${behind}'`]),
  ];
}

function functionName(path: readonly string[]): string {
  return `_${path.join("_").replaceAll("-", "_")}`;
}

function commandFunction({ path, options, commands, arguments: operands }: CommandNode): string {
  const shown = options.filter(({ hidden }) => !hidden).flatMap(optionSpecs);
  const hidden = options.filter((option) => option.hidden).flatMap(optionSpecs);
  const rest =
    commands.length > 0
      ? ["'1: :->command'", "'*:: :->rest'"]
      : operands.map((operand, index) =>
          operand.variadic ? `'*${action(operand)}'` : `'${index + 1}${action(operand)}'`,
        );
  const lines = [
    "local curcontext=$curcontext state line ret=1",
    "typeset -A opt_args",
    `local -a specs=(\n    ${[...shown, ...rest].join("\n    ")}\n  )`,
    // The kubelet has more flags than fit on a screen: they wait for their first letter.
    ...(hidden.length === 0
      ? []
      : [`[[ $PREFIX != --?* ]] || specs+=(\n    ${hidden.join("\n    ")}\n  )`]),
    "_arguments -C -S $specs && ret=0",
  ];
  if (commands.length > 0) {
    const described = commands.map(
      (command) =>
        `'${plain(command.path.at(-1) ?? "")}:${summaryOf(command.description).replaceAll("'", "'\\''")}'`,
    );
    const cases = commands.map(
      (command) => `      ${command.path.at(-1)}) ${functionName(command.path)} && ret=0 ;;`,
    );
    lines.push(
      `case $state in
    command)
      local -a commands=(
        ${described.join("\n        ")}
      )
      _describe command commands && ret=0
      ;;
    rest)
      case $line[1] in
${cases.map((each) => `  ${each}`).join("\n")}
      esac
      ;;
  esac`,
    );
  }
  return `${functionName(path)}() {\n  ${[...lines, "return ret"].join("\n  ")}\n}`;
}

/** Completion for zsh: a file `_NAME` in a directory of $fpath, or a text to be sourced. */
export function zshCompletion(program: CommandNode): string {
  const name = program.path[0] ?? "";
  const functions = allCommands(program).toReversed().map(commandFunction).join("\n\n");
  return `#compdef ${name}

${functions}

if [[ $funcstack[1] == _${name} ]]; then
  _${name} "$@"
else
  compdef _${name} ${name}
fi
`;
}
