import { HttpRefusal } from "./http-refusal.ts";
import type { Exchange } from "./route.ts";

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

/**
 * Answers with the form that the Accept header asks for: `application/json;g=config.k8s.io;v=v1beta1;as=Statusz`, the
 * same as YAML, or text.
 *
 * @throws {HttpRefusal} 406
 */
export async function serveZPage({ request, response }: Exchange, page: ZPage): Promise<void> {
  const { kind, members, text } = page;
  const name = kind.toLowerCase();
  const form = acceptedForm(request.headers.accept ?? "", kind);
  if (form === "text") {
    response.writeHead(200, { "Content-Type": "text/plain; charset=utf-8" });
    response.end(`
kubelet ${name}
Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.
${text}`);
    return;
  }
  const { type, version } = form;
  const object = {
    kind,
    apiVersion: `${group}/${version}`,
    metadata: { name: "kubelet" },
    ...members,
  };
  const body =
    type === "application/yaml"
      ? (await import("yaml")).stringify(object)
      : `${JSON.stringify(object)}\n`;
  const warning = `299 - "This version of the ${name} endpoint is deprecated. Please use a newer version."`;
  response.writeHead(200, {
    "Content-Type": type,
    ...(version === "v1alpha1" ? { Warning: warning } : {}),
  });
  response.end(body);
}

/** The first form of the Accept header that there is. @throws {HttpRefusal} 406 */
function acceptedForm(
  accept: string,
  kind: string,
): "text" | { readonly type: string; readonly version: string } {
  if (accept.trim() === "") return "text";
  for (const clause of accept.split(",")) {
    const [type = "", ...rest] = clause.split(";").map((part) => part.trim());
    if (["text/plain", "text/*", "*/*"].includes(type)) return "text";
    const parameters = new Map(rest.map((part): [string, string] => pair(part)));
    const version = parameters.get("v") ?? "";
    const named = parameters.get("g") === group && parameters.get("as") === kind;
    if (structured.includes(type) && named && versions.includes(version)) return { type, version };
  }
  const forms = structured.flatMap((type) =>
    versions.map((version) => `${type};as=${kind};g=${group};v=${version}`),
  );
  throw new HttpRefusal(
    406,
    `only the following media types are accepted: text/plain, ${forms.join(", ")}\n`,
  );
}

function pair(text: string): [string, string] {
  const [name = "", value = ""] = text.split("=");
  return [name.trim(), value.trim()];
}
