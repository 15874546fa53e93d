import type { Configuration, SettingKind } from "./configuration.ts";
import { encodeShape, fallbackOf, type Remark, remarkText, type Setting } from "./decode.ts";
import { kubeletApiVersion, kubeletShape } from "./kubelet-configuration.ts";
import { proxyApiVersion, proxyShape } from "./proxy-configuration.ts";
import { originText } from "./raw.ts";
import { remoraApiVersion, remoraShape } from "./remora-configuration.ts";
import type { Change, Fields, Json, Leaf, ObjectShape } from "./shape.ts";

/** What it takes for a new value to hold, in words. */
export const changeTexts: Readonly<Record<Change, string>> = {
  restart: "restart the agent; pods keep running",
  "new pods": "restart the agent; pods that are made afterwards have it",
  drain: "drain the node, `remora down`, start again",
};

/** One field as `remora config check` shows it. */
export interface Explained {
  readonly kind: SettingKind;
  readonly path: string;
  /** Undefined: there is none. */
  readonly value: Json | undefined;
  readonly default: Json | undefined;
  /** `file:line`, `--flag`, or undefined for a default. */
  readonly from: string | undefined;
  readonly because: string | undefined;
  readonly standing: Leaf<unknown>["standing"]["kind"];
  readonly reason: string | undefined;
  readonly change: Change;
}

const masked = "<masked>";

function encoded(leaf: Leaf<unknown>, value: unknown): Json | undefined {
  return value === undefined || value === null ? undefined : leaf.type.encode(value);
}

function explained(kind: SettingKind, { path, leaf, value, origin, because }: Setting): Explained {
  const json = encoded(leaf, value);
  return {
    kind,
    path,
    value: leaf.secret && origin !== undefined ? masked : json,
    default: leaf.fallback,
    from: origin === undefined ? undefined : originText(origin),
    because,
    standing: leaf.standing.kind,
    reason: leaf.standing.kind === "honoured" ? undefined : leaf.standing.reason,
    change: leaf.change,
  };
}

/** All fields in the order of the documentation; flags that no file can say only where they were given. */
export function explain({ settings }: Pick<Configuration, "settings">): readonly Explained[] {
  const kinds = [
    "RemoraConfiguration",
    "KubeletConfiguration",
    "KubeProxyConfiguration",
    "flags",
  ] as const;
  return kinds.flatMap((kind) =>
    [...settings[kind].values()]
      .filter(({ origin }) => kind !== "flags" || origin !== undefined)
      .map((setting) => explained(kind, setting)),
  );
}

function shown(value: Json | undefined): string {
  if (value === undefined) return "-";
  return typeof value === "string" && /^[\w./:%+-]+$/.test(value) ? value : JSON.stringify(value);
}

function columns(rows: readonly (readonly string[])[]): readonly string[] {
  const widths = [0, 1].map((at) =>
    Math.min(48, Math.max(...rows.map((row) => row[at]?.length ?? 0))),
  );
  return rows.map(([a = "", b = "", ...rest]) =>
    `  ${a.padEnd(widths[0] ?? 0)}  ${b.padEnd(widths[1] ?? 0)}  ${rest.join("  ")}`.trimEnd(),
  );
}

const headings: readonly (readonly [Remark["severity"], string])[] = [
  ["error", "Errors: the agent does not start"],
  ["warning", "The agent starts, but"],
  ["unknown", "Not understood, and left out"],
  ["ignored", "Accepted without effect"],
];

function sourceOf({ from, because }: Explained): string {
  return from ?? (because === undefined ? "default" : `default, because ${because}`);
}

function summary({ remarks }: Configuration): string {
  const count = (severity: Remark["severity"]): number =>
    remarks.filter((remark) => remark.severity === severity).length;
  const errors = count("error");
  if (errors > 0)
    return `The configuration cannot be used: ${errors} ${errors === 1 ? "error" : "errors"}.`;
  const idle = count("unknown") + count("ignored");
  const fields = `${idle} of its fields ${idle === 1 ? "has" : "have"} no effect`;
  return `The configuration can be used${idle === 0 ? "" : `; ${fields}`}.`;
}

/** For people: what is wrong, every value with where it came from, and what a change of it takes. */
export function explainText(configuration: Configuration, all: boolean): readonly string[] {
  const lines = [summary(configuration), ""];
  for (const [severity, heading] of headings) {
    const remarks = configuration.remarks.filter((remark) => remark.severity === severity);
    if (remarks.length > 0)
      lines.push(`${heading}:`, ...remarks.map((remark) => `  ${remarkText(remark)}`), "");
  }
  for (const path of configuration.skipped)
    lines.push(`${path}: skipped, its name does not end in .conf`);
  const fields = explain(configuration);
  for (const kind of new Set(fields.map((field) => field.kind))) {
    const rows = fields
      .filter(
        (field) =>
          field.kind === kind && (all || field.from !== undefined || field.because !== undefined),
      )
      .map((field) => [field.path, shown(field.value), `${sourceOf(field)} [${field.change}]`]);
    if (rows.length > 0) lines.push(`${kind}:`, ...columns(rows), "");
  }
  lines.push("To change a value:");
  lines.push(...Object.entries(changeTexts).map(([change, text]) => `  [${change}] ${text}`));
  lines.push(
    "  The files that certificates and CAs are read from are read again when they change.",
  );
  return lines;
}

/** For programs. */
export function explainJSON(configuration: Configuration): Json {
  const remarks = configuration.remarks.map(({ severity, kind, path, origin, text }) => ({
    severity,
    kind,
    path,
    from: origin === undefined ? null : originText(origin),
    text,
  }));
  const fields = explain(configuration).map((field) => ({
    ...field,
    value: field.value ?? null,
    default: field.default ?? null,
    from: field.from ?? null,
    because: field.because ?? null,
    reason: field.reason ?? null,
  }));
  return { remarks, fields, skipped: configuration.skipped };
}

function defaults(shape: ObjectShape<Fields>): unknown {
  return Object.fromEntries(
    Object.entries(shape.fields).map(([name, member]) => [
      name,
      member.kind === "leaf" ? fallbackOf(member) : defaults(member),
    ]),
  );
}

/** The three documents with nothing but defaults in them. */
export function defaultDocuments(): readonly Json[] {
  return (
    [
      [kubeletApiVersion, "KubeletConfiguration", kubeletShape],
      [proxyApiVersion, "KubeProxyConfiguration", proxyShape],
      [remoraApiVersion, "RemoraConfiguration", remoraShape],
    ] as const
  ).map(([apiVersion, kind, shape]) => ({
    apiVersion,
    kind,
    ...(encodeShape(shape, defaults(shape)) as Readonly<Record<string, Json>>),
  }));
}
