import { allCommands, type CommandNode, type OptionNode, type ValueNode } from "./command-tree.ts";

function quoted(words: readonly string[]): string {
  return `'${words.join(" ").replaceAll("'", "'\\''")}'`;
}

function names(options: readonly OptionNode[]): readonly string[] {
  return options.flatMap(({ short, long }) => (short === undefined ? [long] : [short, long]));
}

function takesValue({ value }: OptionNode): boolean {
  return value !== undefined && !value.optional;
}

/** Options that every command with hidden options has, and has hidden, so that they need to be said once. */
function sharedHidden(program: CommandNode): readonly OptionNode[] {
  const having = allCommands(program).filter(({ options }) => options.some(({ hidden }) => hidden));
  const all = new Map(
    having.flatMap(({ options }) => options.filter(({ hidden }) => hidden)).map((o) => [o.long, o]),
  );
  return [...all.values()].filter(({ long }) =>
    having.every(({ options }) => options.some((o) => o.hidden && o.long === long)),
  );
}

/** What there is to complete behind one command, as assignments. */
function commandCase(node: CommandNode, name: string, shared: ReadonlySet<string>): string {
  const { path, options, commands, arguments: operands } = node;
  const own = options.filter(({ long }) => !shared.has(long));
  const hasShared = options.some(({ hidden, long }) => hidden && shared.has(long));
  const visible = options.filter(({ hidden }) => !hidden).map(({ long }) => long);
  const words = [
    ...commands.map((command) => command.path.at(-1) ?? ""),
    ...operands.flatMap(({ choices }) => choices),
  ];
  const hidden = own.filter((option) => option.hidden).map(({ long }) => long);
  const takers = names(own.filter(takesValue));
  const lines = [
    `words=${quoted(words)}`,
    `shown=${quoted(visible)}`,
    `hidden=${quoted(hidden)}${hasShared ? `" $_${name}_flags"` : ""}`,
    `takers=${quoted(takers)}${hasShared ? `" $_${name}_flag_takers"` : ""}`,
    ...(operands.some(({ kind }) => kind !== "text") ? ["operand=file"] : []),
  ];
  return `    ${quoted([path.slice(1).join(" ")])})\n${lines.map((line) => `      ${line}`).join("\n")}\n      ;;`;
}

function offered({ choices, kind }: ValueNode): string {
  return choices.length > 0 ? `values=${quoted(choices)}` : `operand=${kind}`;
}

/** What may stand behind an option, as cases of "COMMAND OPTION". */
function valueCases(program: CommandNode): string {
  const meanings = new Map<string, Map<string, string[]>>();
  for (const { path, options } of allCommands(program)) {
    for (const option of options) {
      if (option.value === undefined) continue;
      for (const name of names([option])) {
        const byMeaning = meanings.get(name) ?? new Map<string, string[]>();
        const meaning = offered(option.value);
        byMeaning.set(meaning, [...(byMeaning.get(meaning) ?? []), path.slice(1).join(" ")]);
        meanings.set(name, byMeaning);
      }
    }
  }
  const patterns = new Map<string, string[]>();
  for (const [name, byMeaning] of meanings) {
    for (const [meaning, commands] of byMeaning) {
      const found = byMeaning.size === 1 ? [`*' ${name}'`] : commands.map((c) => `'${c} ${name}'`);
      patterns.set(meaning, [...(patterns.get(meaning) ?? []), ...found]);
    }
  }
  // Files are what is offered where nothing is known.
  return [...patterns]
    .filter(([meaning]) => meaning !== "operand=file")
    .map(([meaning, found]) => `    ${found.join(" | ")}) ${meaning} ;;`)
    .join("\n");
}

/** Completion for bash 4 and newer; needs nothing of the package bash-completion. */
export function bashCompletion(program: CommandNode): string {
  const name = program.path[0] ?? "";
  const shared = sharedHidden(program);
  const sharedNames = new Set(shared.map(({ long }) => long));
  const cases = allCommands(program).map((node) => commandCase(node, name, sharedNames));
  return `# bash completion of ${name}

# Flags of the kubelet and of kube-proxy, and those of them that want a value.
_${name}_flags=${quoted(shared.map(({ long }) => long))}
_${name}_flag_takers=${quoted(names(shared.filter(takesValue)))}

_${name}_command() {
  words= shown= hidden= takers= operand=
  case $1 in
${cases.join("\n")}
  esac
}

_${name}_value() {
  operand=file values=
  case "$1 $2" in
${valueCases(program)}
  esac
}

_${name}() {
  local words shown hidden takers operand values command= current option= index word
  COMPREPLY=()
  current=\${COMP_WORDS[COMP_CWORD]}
  _${name}_command ''
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
