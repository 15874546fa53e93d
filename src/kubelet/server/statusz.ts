import { HttpRefusal } from "./http-refusal.ts";
import type { Exchange, RouteDeps } from "./route.ts";

const group = "config.k8s.io";
const versions = ["v1beta1", "v1alpha1"];
const warning = `299 - "This version of the statusz endpoint is deprecated. Please use a newer version."`;

/**
 * GET /statusz (KEP-4827): text for people, or a `Statusz` for who asks for
 * `application/json;g=config.k8s.io;v=v1beta1;as=Statusz`.
 *
 * @param paths Pages that there are, for the reader to go on with.
 * @throws {HttpRefusal} 406
 */
export function serveStatusz(
  { clock, node, startedAt }: RouteDeps,
  { request, response }: Exchange,
  paths: readonly string[],
): void {
  const version = acceptedVersion(request.headers.accept ?? "");
  const kubeletVersion = node.node()?.status?.nodeInfo?.kubeletVersion ?? "";
  const status = {
    startTime: new Date(startedAt).toISOString().replace(/\.\d+Z$/, "Z"),
    uptimeSeconds: Math.max(0, Math.floor((clock.now() - startedAt) / 1000)),
    binaryVersion: kubeletVersion.replace(/^v/, ""),
    paths,
  };
  if (version === "text") {
    response.writeHead(200, { "Content-Type": "text/plain; charset=utf-8" });
    response.end(statusText(status));
    return;
  }
  response.writeHead(200, {
    "Content-Type": "application/json",
    ...(version === "v1alpha1" ? { Warning: warning } : {}),
  });
  const head = {
    kind: "Statusz",
    apiVersion: `${group}/${version}`,
    metadata: { name: "kubelet" },
  };
  response.end(JSON.stringify({ ...head, ...status }));
}

function statusText(status: {
  readonly startTime: string;
  readonly uptimeSeconds: number;
  readonly binaryVersion: string;
  readonly paths: readonly string[];
}): string {
  const { binaryVersion, paths, startTime, uptimeSeconds } = status;
  const two = (value: number): string => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(uptimeSeconds / 3600), Math.floor(uptimeSeconds / 60) % 60];
  return `
kubelet statusz
Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.

Started: ${startTime}
Up: ${hours} hr ${two(minutes)} min ${two(uptimeSeconds % 60)} sec
Binary version: ${binaryVersion}
Paths: ${paths.join(" ")}
`;
}

/** Which form the Accept header asks for first. @throws {HttpRefusal} 406 for none of those there are. */
function acceptedVersion(accept: string): string {
  if (accept.trim() === "") return "text";
  for (const clause of accept.split(",")) {
    const [type = "", ...rest] = clause.split(";").map((part) => part.trim());
    if (["text/plain", "text/*", "*/*"].includes(type)) return "text";
    const parameters = new Map(rest.map((part): [string, string] => pair(part)));
    const version = parameters.get("v") ?? "";
    const structured = parameters.get("g") === group && parameters.get("as") === "Statusz";
    if (type === "application/json" && structured && versions.includes(version)) return version;
  }
  const forms = versions.map((version) => `application/json;as=Statusz;g=${group};v=${version}`);
  throw new HttpRefusal(
    406,
    `only the following media types are accepted: text/plain, ${forms.join(", ")}\n`,
  );
}

function pair(text: string): [string, string] {
  const [name = "", value = ""] = text.split("=");
  return [name.trim(), value.trim()];
}
