const group = "config.k8s.io";
const versions = ["v1beta1", "v1alpha1"];
const structured = ["application/json", "application/yaml"];

/** A page about the component itself (KEP-4827, KEP-4828): text for people, an object for who asks for one. */
export interface ZPage {
  readonly kind: "Flagz" | "Statusz";
  /** What follows the heading that all such pages have. */
  readonly text: string;
  /** Members of the object besides its kind, version and name. */
  readonly members: Readonly<Record<string, unknown>>;
}

export interface ZAnswer {
  readonly status: 200 | 406;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/**
 * The page in the form that an Accept header asks for: `application/json;g=config.k8s.io;v=v1beta1;as=Statusz`, the same
 * as YAML, or text. 406, with the forms that there are, for any other.
 *
 * @param component What the page calls itself: `kubelet`, `kube-proxy`.
 */
export async function zAnswer(accept: string, component: string, page: ZPage): Promise<ZAnswer> {
  const { kind, members, text } = page;
  const name = kind.toLowerCase();
  const form = acceptedForm(accept, kind);
  if (form === undefined) {
    return {
      status: 406,
      headers: plain,
      body: `only the following media types are accepted: text/plain, ${allForms(kind).join(", ")}\n`,
    };
  }
  if (form === "text") {
    const body = `
${component} ${name}
Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.
${text}`;
    return { status: 200, headers: plain, body };
  }
  const { type, version } = form;
  const object = {
    kind,
    apiVersion: `${group}/${version}`,
    metadata: { name: component },
    ...members,
  };
  const warning = `299 - "This version of the ${name} endpoint is deprecated. Please use a newer version."`;
  return {
    status: 200,
    headers: {
      "Content-Type": type,
      ...(version === "v1alpha1" ? { Warning: warning } : {}),
    },
    body:
      type === "application/yaml"
        ? (await import("yaml")).stringify(object)
        : `${JSON.stringify(object)}\n`,
  };
}

const plain = { "Content-Type": "text/plain; charset=utf-8" };

function allForms(kind: string): string[] {
  return structured.flatMap((type) =>
    versions.map((version) => `${type};as=${kind};g=${group};v=${version}`),
  );
}

/** The first form of the Accept header that there is. */
function acceptedForm(
  accept: string,
  kind: string,
): "text" | { readonly type: string; readonly version: string } | undefined {
  if (accept.trim() === "") return "text";
  for (const clause of accept.split(",")) {
    const [type = "", ...rest] = clause.split(";").map((part) => part.trim());
    if (["text/plain", "text/*", "*/*"].includes(type)) return "text";
    const parameters = new Map(rest.map((part): [string, string] => pair(part)));
    const version = parameters.get("v") ?? "";
    const named = parameters.get("g") === group && parameters.get("as") === kind;
    if (structured.includes(type) && named && versions.includes(version)) return { type, version };
  }
  return undefined;
}

function pair(text: string): [string, string] {
  const [name = "", value = ""] = text.split("=");
  return [name.trim(), value.trim()];
}

/** /flagz (KEP-4828): every flag of the command line with its value. */
export function flagzPage(flags: Readonly<Record<string, string>>): ZPage {
  const sorted = Object.entries(flags).toSorted(([a], [b]) => (a < b ? -1 : 1));
  const text = sorted.map(([name, value]) => `${name}=${value}\n`).join("");
  return { kind: "Flagz", text, members: { flags: Object.fromEntries(sorted) } };
}

/**
 * /statusz (KEP-4827): since when a program runs, and as what.
 *
 * @param status.paths Pages that there are, for the reader to go on with.
 */
export function statuszPage(status: {
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly now: number;
  /** Without a leading v. */
  readonly binaryVersion: string;
  readonly paths: readonly string[];
}): ZPage {
  const { binaryVersion, now, paths, startedAt } = status;
  const startTime = new Date(startedAt).toISOString().replace(/\.\d+Z$/, "Z");
  const uptimeSeconds = Math.max(0, Math.floor((now - startedAt) / 1000));
  const two = (value: number): string => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(uptimeSeconds / 3600), Math.floor(uptimeSeconds / 60) % 60];
  const text = `
Started: ${startTime}
Up: ${hours} hr ${two(minutes)} min ${two(uptimeSeconds % 60)} sec
Binary version: ${binaryVersion}
Paths: ${paths.join(" ")}
`;
  return { kind: "Statusz", text, members: { startTime, uptimeSeconds, binaryVersion, paths } };
}
