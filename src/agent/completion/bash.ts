import { allCommands, type CommandNode, type OptionNode } from "./command-tree.ts";

function quoted(words: readonly string[]): string {
  return `'${words.join(" ").replaceAll("'", "'\\''")}'`;
}

function names(options: readonly OptionNode[]): readonly string[] {
  return options.flatMap(({ short, long }) => (short === undefined ? [long] : [short, long]));
}

/** What there is to complete behind one command, as assignments. */
function commandCase({ path, options, commands, arguments: operands }: CommandNode): string {
  const takers = options.filter(({ value }) => value !== undefined && !value.optional);
  const shown = options.filter(({ hidden }) => !hidden);
  const hidden = options.filter((option) => option.hidden);
  const words = [
    ...commands.map((command) => command.path.at(-1) ?? ""),
    ...operands.flatMap(({ choices }) => choices),
  ];
  const lines = [
    `words=${quoted(words)}`,
    `shown=${quoted(shown.map(({ long }) => long))}`,
    ...(hidden.length === 0 ? [] : [`hidden=${quoted(hidden.map(({ long }) => long))}`]),
    `takers=${quoted(names(takers))}`,
    ...(operands.some(({ kind }) => kind !== "text") ? ["operand=file"] : []),
  ];
  return `    ${quoted([path.slice(1).join(" ")])})\n${lines.map((line) => `      ${line}`).join("\n")}\n      ;;`;
}

/** What may stand behind an option: the same for every command that has one of this name and these values. */
function valueCases(program: CommandNode): string {
  const seen = new Map<string, string[]>();
  for (const { path, options } of allCommands(program)) {
    for (const option of options) {
      const { value } = option;
      if (value === undefined) continue;
      const what =
        value.choices.length > 0
          ? `values=${quoted(value.choices)}`
          : value.kind === "directory"
            ? "operand=directory"
            : value.kind === "file"
              ? "operand=file"
              : "operand=none";
      const patterns = seen.get(what) ?? [];
      for (const name of names([option])) patterns.push(`'${path.slice(1).join(" ")} ${name}'`);
      seen.set(what, patterns);
    }
  }
  return [...seen].map(([what, patterns]) => `    ${patterns.join(" | ")}) ${what} ;;`).join("\n");
}

/** Completion for bash 4 and newer; needs nothing of the package bash-completion. */
export function bashCompletion(program: CommandNode): string {
  const name = program.path[0] ?? "";
  return `# bash completion of ${name}

_${name}_command() {
  words= shown= hidden= takers= operand= values=
  case $1 in
${allCommands(program).map(commandCase).join("\n")}
  esac
}

_${name}_value() {
  operand= values=
  case "$1 $2" in
${valueCases(program)}
  esac
}

_${name}() {
  local words shown hidden takers operand values command= current option= index word
  COMPREPLY=()
  current=\${COMP_WORDS[COMP_CWORD]}
  _${name}_command "$command"
  for ((index = 1; index < COMP_CWORD; index++)); do
    word=\${COMP_WORDS[index]}
    # Bash takes --name=value for three words.
    if [[ $word == '=' ]]; then continue; fi
    if [[ $option ]]; then
      option=
    elif [[ $word == -* ]]; then
      if [[ \${COMP_WORDS[index + 1]} == '=' || " $takers " == *" $word "* ]]; then option=$word; fi
    elif [[ " $words " == *" $word "* ]]; then
      command=\${command:+$command }$word
      _${name}_command "$command"
    fi
  done
  if [[ $current == '=' ]]; then current=; fi
  if [[ $option ]]; then
    _${name}_value "$command" "$option"
    if [[ $values ]]; then
      mapfile -t COMPREPLY < <(compgen -W "$values" -- "$current")
      return
    fi
  elif [[ $current == -* ]]; then
    # The kubelet has more flags than fit on a screen: they wait for their first letter.
    if [[ $current == --?* ]]; then shown="$shown $hidden"; fi
    mapfile -t COMPREPLY < <(compgen -W "$shown" -- "$current")
    return
  elif [[ $words ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    return
  fi
  case $operand in
    file) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    directory) mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
    *) return ;;
  esac
  compopt -o filenames 2>/dev/null
}

complete -F _${name} ${name}
`;
}
