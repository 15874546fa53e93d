import {
  type CommandNode,
  type OptionNode,
  summaryOf,
  type ValueNode,
} from "../../src/agent/completion/command-tree.ts";
import type { configurationFlags } from "../../src/config/configuration.ts";

/** What every page has in its header and footer. */
export interface PageFacts {
  readonly version: string;
  /** YYYY-MM-DD */
  readonly date: string;
}

/** A text in which no character means anything to roff; `this` is set bold. */
export function roffText(text: string): string {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll(/[‘’]/g, "'")
    .replaceAll("-", "\\-")
    .replaceAll(/`([^`]+)`/g, "\\fB$1\\fR")
    .replaceAll(/^([.'])/gm, "\\&$1");
}

function bold(text: string): string {
  return `\\fB${roffText(text)}\\fR`;
}

function sentence(text: string): string {
  // A word, not something that is typed as it stands: sha256:HEX.
  const begun = text.replace(/^[a-z](?=[a-z]*(?:[ ,'’-]|$))/, (first) => first.toUpperCase());
  return roffText(/[.:]$/.test(begun) ? begun : `${begun}.`);
}

function header(title: string, section: number, { version, date }: PageFacts): string {
  // Neither hyphenated nor justified: flags and paths are read letter by letter.
  return `.TH "${title.toUpperCase()}" ${section} "${date}" "Remora ${version}" "Remora"\n.nh\n.ad l`;
}

function valueText({ name, optional, variadic }: ValueNode): string {
  const shown = `\\fI${roffText(name)}\\fR${variadic ? " ..." : ""}`;
  return optional ? `[${shown}]` : shown;
}

function optionText({ long, short, description, value, fallback }: OptionNode): string {
  const names = [short, long]
    .flatMap((name) => (name === undefined ? [] : [bold(name)]))
    .join(", ");
  const choices =
    value === undefined || value.choices.length === 0
      ? ""
      : ` One of ${value.choices.map((each) => bold(each)).join(", ")}.`;
  const otherwise = fallback === undefined || fallback === "" ? "" : ` Default: ${bold(fallback)}.`;
  return `.TP\n${names}${value === undefined ? "" : ` ${valueText(value)}`}\n${sentence(description)}${choices}${otherwise}`;
}

function synopsis({ path, options, arguments: operands, commands }: CommandNode): string {
  const parts = [
    bold(path.join(" ")),
    ...(options.length > 0 ? ["[\\fIoption\\fR ...]"] : []),
    ...(commands.length > 0 ? ["\\fIcommand\\fR"] : []),
    ...operands.map((operand) => valueText(operand)),
  ];
  return parts.join(" ");
}

function visibleOptions({ options }: CommandNode): string {
  return options
    .filter(({ hidden }) => !hidden)
    .map((option) => optionText(option))
    .join("\n");
}

function upstreamNote({ options }: CommandNode): readonly string[] {
  if (!options.some(({ hidden }) => hidden)) return [];
  return [
    ".PP",
    "All flags of the kubelet and of kube\\-proxy are understood as well: see \\fBremora\\-flags\\fR(7).",
  ];
}

const files: readonly (readonly [string, string])[] = [
  ["/etc/remora/config.yaml", "configuration of `remora run` as a service"],
  ["/etc/remora/remora.env", "more flags and environment of the services"],
  ["/etc/default/remora", "REMORA_PROFILE, for every call of `remora`"],
  ["/var/lib/remora", "state of `remora up`: the cluster, and the data of claims"],
  ["/var/lib/kubelet", "state of `remora run`"],
  ["/var/log/pods, /var/log/containers", "logs of containers"],
];

const environment: readonly (readonly [string, string])[] = [
  [
    "REMORA_PROFILE",
    "`small` trades time for a little memory. What /etc/default/remora says otherwise holds",
  ],
  ["REMORA_TOKEN", "bootstrap token of `remora run --join`"],
  ["KUBECONFIG", "where commands that ask an API server look for credentials first"],
];

function definitions(pairs: readonly (readonly [string, string])[]): string {
  return pairs.map(([name, text]) => `.TP\n${bold(name)}\n${sentence(text)}`).join("\n");
}

function programSections({ commands }: CommandNode): readonly string[] {
  const list = commands.map(
    ({ path, description }) =>
      `.TP\n\\fB${path.map((each) => roffText(each)).join("\\-")}\\fR(1)\n${sentence(description)}`,
  );
  return [
    ".SH COMMANDS",
    ...list,
    ".SH FILES",
    definitions(files),
    ".SH ENVIRONMENT",
    definitions(environment),
    ".SH SEE ALSO",
    "\\fBremora\\-flags\\fR(7), \\fBkubectl\\fR(1), \\fBdockerd\\fR(8), \\fBnft\\fR(8), /usr/share/doc/remora",
  ];
}

function subcommandSections(below: readonly CommandNode[]): readonly string[] {
  return below.flatMap((command) => [
    `.SH ${command.path.slice(1).join(" ").toUpperCase()}`,
    synopsis(command),
    ".PP",
    sentence(command.description),
    visibleOptions(command),
    ...upstreamNote(command),
  ]);
}

/**
 * Page of section 1 for a command, with the commands below it, but for the program itself: its commands have their own.
 *
 * @param all The command and all below it.
 */
export function commandPage(
  command: CommandNode,
  all: readonly CommandNode[],
  facts: PageFacts,
): string {
  const isProgram = command.path.length === 1;
  const name = command.path.join("-");
  return `${[
    `.\\" Written from the command line's own description.`,
    header(name, 1, facts),
    ".SH NAME",
    `${roffText(name)} \\- ${roffText(summaryOf(command.description))}`,
    ".SH SYNOPSIS",
    synopsis(command),
    ".SH DESCRIPTION",
    sentence(command.description),
    ".SH OPTIONS",
    visibleOptions(command),
    ...upstreamNote(command),
    ...(isProgram ? programSections(command) : subcommandSections(all.slice(1))),
    ...(isProgram ? [] : [".SH SEE ALSO", "\\fBremora\\fR(1)"]),
  ].join("\n")}\n`;
}

type Flag = ReturnType<typeof configurationFlags> extends ReadonlyMap<string, infer F> ? F : never;

function flagText(name: string, { kind, path, leaf }: Flag): string {
  const field = kind === "flags" ? "" : `${bold(path)} of ${kind}. `;
  const fallback =
    leaf.fallback === undefined ? "" : `Default: ${bold(JSON.stringify(leaf.fallback))}. `;
  const { standing } = leaf;
  const fate = {
    honoured: () => "",
    ignored: (reason: string) => `Has no effect: ${roffText(reason)}.`,
    fixed: (reason: string) => `Another value is refused: ${roffText(reason)}.`,
  }[standing.kind]("reason" in standing ? standing.reason : "");
  return `.TP\n${bold(`--${name}`)} \\fI${roffText(leaf.type.name)}\\fR\n${`${field}${fallback}${fate}`.trim() || "Understood."}`;
}

/** Page of section 7 with every flag that sets a field of a configuration. */
export function flagsPage(flags: ReturnType<typeof configurationFlags>, facts: PageFacts): string {
  const list = [...flags]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, flag]) => flagText(name, flag));
  return `${[
    `.\\" Written from the tables of the configuration.`,
    header("remora-flags", 7, facts),
    ".SH NAME",
    "remora\\-flags \\- flags of the kubelet and of kube\\-proxy that Remora understands",
    ".SH DESCRIPTION",
    "\\fBremora up\\fR, \\fBremora run\\fR and \\fBremora config check\\fR take these flags besides their own. Each sets a field of a configuration, over what files say. \\fBremora config check\\fR tells what becomes of them.",
    ".SH FLAGS",
    ...list,
    ".SH SEE ALSO",
    "\\fBremora\\-run\\fR(1), \\fBremora\\-up\\fR(1), /usr/share/doc/remora/docs/configuration.md",
  ].join("\n")}\n`;
}
