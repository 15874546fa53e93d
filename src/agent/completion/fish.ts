import { allCommands, type CommandNode, type OptionNode } from "./command-tree.ts";

function quoted(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}

/** True while the words before the cursor are this command and nothing below it. */
function condition({ path, commands }: CommandNode): string {
  const below = commands.map((command) => command.path.at(-1) ?? "").join(" ");
  const inside = path.slice(1).map((word) => `__fish_seen_subcommand_from ${word}`);
  const outside = below === "" ? [] : [`not __fish_seen_subcommand_from ${below}`];
  return [...inside, ...outside].join("; and ");
}

function optionLine(name: string, when: string, option: OptionNode): string {
  const { long, short, description, value, hidden } = option;
  // The kubelet has more flags than fit on a screen: they wait for their first letter.
  const typed = `${when === "" ? "" : `${when}; and `}string match -qr -- '^--.' (commandline -ct)`;
  const parts = [
    `complete -c ${name}`,
    ...(when === "" && !hidden ? [] : [`-n ${quoted(hidden ? typed : when)}`]),
    `-l ${long.slice(2)}`,
    ...(short === undefined ? [] : [`-s ${short.slice(1)}`]),
    `-d ${quoted(description || "flag of the kubelet or of kube-proxy")}`,
  ];
  if (value === undefined) return parts.join(" ");
  if (!value.optional) parts.push("-r");
  if (value.choices.length > 0) parts.push(`-f -a ${quoted(value.choices.join(" "))}`);
  else if (value.kind === "text") parts.push("-f");
  else if (value.kind === "directory") parts.push("-f -a '(__fish_complete_directories)'");
  else parts.push("-F");
  return parts.join(" ");
}

/** Completion for fish 3 and newer. */
export function fishCompletion(program: CommandNode): string {
  const name = program.path[0] ?? "";
  const lines = allCommands(program).flatMap((command) => {
    const when = condition(command);
    return [
      ...command.commands.map(
        (below) =>
          `complete -c ${name} -n ${quoted(when)} -a ${below.path.at(-1)} -d ${quoted(below.description)}`,
      ),
      ...command.options.map((option) => optionLine(name, when, option)),
    ];
  });
  return `# fish completion of ${name}\n\ncomplete -c ${name} -f\n${lines.join("\n")}\n`;
}
