import { allCommands, type CommandNode, type OptionNode, summaryOf } from "./command-tree.ts";

function quoted(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}

function lastWord({ path }: CommandNode): string {
  return path.at(-1) ?? "";
}

/** True while the words before the cursor are this command and nothing below it. */
function condition(node: CommandNode): string {
  const below = node.commands.map(lastWord).join(" ");
  const inside = node.path.slice(1).map((word) => `__fish_seen_subcommand_from ${word}`);
  const outside = below === "" ? [] : [`not __fish_seen_subcommand_from ${below}`];
  return [...inside, ...outside].join("; and ");
}

// The kubelet has more flags than fit on a screen: they wait for their first letter.
const begun = "string match -qr -- '^--.' (commandline -ct)";

/** An option as arguments of `complete`, without its condition. */
function optionArguments({ long, short, description, value }: OptionNode): string {
  const parts = [
    `-l ${long.slice(2)}`,
    ...(short === undefined ? [] : [`-s ${short.slice(1)}`]),
    `-d ${quoted(summaryOf(description) || "flag of the kubelet or of kube-proxy")}`,
  ];
  if (value === undefined) return parts.join(" ");
  if (!value.optional) parts.push("-r");
  if (value.choices.length > 0) parts.push(`-f -a ${quoted(value.choices.join(" "))}`);
  else if (value.kind === "text") parts.push("-f");
  else if (value.kind === "directory") parts.push("-f -a '(__fish_complete_directories)'");
  else parts.push("-F");
  return parts.join(" ");
}

interface Place {
  readonly option: OptionNode;
  readonly commands: readonly CommandNode[];
}

/** Options that several commands have alike are said once. */
function places(commands: readonly CommandNode[]): readonly Place[] {
  const out = new Map<string, { option: OptionNode; commands: CommandNode[] }>();
  for (const command of commands) {
    for (const option of command.options) {
      const key = `${option.hidden} ${optionArguments(option)}`;
      const place = out.get(key) ?? { option, commands: [] };
      place.commands.push(command);
      out.set(key, place);
    }
  }
  return [...out.values()];
}

/** Completion for fish 3 and newer. */
export function fishCompletion(program: CommandNode): string {
  const name = program.path[0] ?? "";
  const all = allCommands(program);
  // A command whose name no other has is told by that name alone.
  const alone = all.filter(
    (node) =>
      node.commands.length === 0 &&
      all.filter((each) => lastWord(each) === lastWord(node)).length === 1,
  );
  const line = (when: string, { option }: Place): string => {
    const test = option.hidden ? `${when}; and ${begun}` : when;
    return `complete -c ${name} -n ${quoted(test)} ${optionArguments(option)}`;
  };
  const lines = [
    ...all.flatMap((command) =>
      command.commands.map(
        (below) =>
          `complete -c ${name} -n ${quoted(condition(command))} -a ${lastWord(below)} -d ${quoted(summaryOf(below.description))}`,
      ),
    ),
    ...all.flatMap((command) =>
      command.arguments
        .filter(({ choices }) => choices.length > 0)
        .map(
          ({ choices }) =>
            `complete -c ${name} -n ${quoted(condition(command))} -a ${quoted(choices.join(" "))}`,
        ),
    ),
    ...places(alone).map((place) =>
      line(`__fish_seen_subcommand_from ${place.commands.map(lastWord).join(" ")}`, place),
    ),
    ...all
      .filter((command) => !alone.includes(command))
      .flatMap((command) => places([command]).map((place) => line(condition(command), place))),
  ];
  return `# fish completion of ${name}\n\ncomplete -c ${name} -f\n${lines.join("\n")}\n`;
}
