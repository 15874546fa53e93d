import { basename, join } from "node:path";

import { readYamlDocument } from "../../api/yaml.ts";
import { readIfThere } from "../../lib/read-if-there.ts";
import type { Machine } from "../doctor/machine.ts";
import { flagOf } from "../doctor/site.ts";
import { isSecretKey, secretValues } from "./secret-keys.ts";

/** Values that stand base64 encoded also count decoded. */
function decoded(value: string): readonly string[] {
  if (!/^[\w+/-]{8,}={0,2}$/.test(value)) return [value];
  const text = Buffer.from(value, "base64").toString("utf8");
  // What is no text was not meant to be one.
  if (text.includes("\uFFFD")) return [value];
  const password = /^[^:\s]+:(.+)$/.exec(text)?.[1];
  return [value, text, ...(password === undefined ? [] : [password])];
}

/** The secrets in a kubeconfig, or in credentials of registries. */
async function secretsOfDocument(text: string): Promise<readonly string[]> {
  try {
    const value: unknown = (await readYamlDocument(text, "credentials")).toJS();
    return secretValues(value).flatMap(decoded);
  } catch {
    // A damaged one is one large secret; its short lines are words of anybody.
    return text.split("\n").filter((line) => line.length >= 24);
  }
}

/** The secrets among `NAME=value`; of addresses with a password that. */
export function secretsOfEnvironment(entries: readonly string[]): readonly string[] {
  return entries.flatMap((entry) => {
    const at = entry.indexOf("=");
    const value = entry.slice(at + 1).replace(/^"(.*)"$/, "$1");
    const inside = /:\/\/[^\s/:@]*:?([^\s@]+)@/.exec(value)?.[1];
    return [
      ...(at > 0 && isSecretKey(entry.slice(0, at)) ? [value] : []),
      ...(inside === undefined ? [] : [inside]),
    ];
  });
}

/** Secrets that were given as flags. */
function secretsOfFlags(words: readonly string[]): readonly string[] {
  return words.flatMap((word, index) => {
    const [, name = "", value] = /^--([\w-]+)(?:=(.*))?$/s.exec(word) ?? [];
    if (!isSecretKey(name)) return [];
    return [value ?? words[index + 1] ?? ""];
  });
}

async function filesIn(machine: Machine, directory: string): Promise<readonly string[]> {
  return (await machine.names(directory)).map((name) => join(directory, name));
}

/**
 * What is secret on this machine and can be found: credentials of the agent, of the control plane, of registries. It is
 * looked for in all that a bundle holds, and is itself in none of it.
 */
export async function knownSecrets(machine: Machine): Promise<readonly string[]> {
  const { identities, pid, rootDir, stateDir } = machine.site;
  const found: string[] = [];
  const ofControlPlane = await filesIn(machine, join(stateDir, "control-plane"));
  const documents = [
    ...ofControlPlane.filter((path) => path.endsWith(".conf")),
    join(rootDir, "config.json"),
    "/root/.docker/config.json",
    "/var/lib/kubelet/config.json",
  ];
  const texts = [
    ...(await Promise.all(documents.map((path) => machine.read(path)))),
    ...(await Promise.all(
      identities.map(({ kubeconfig }) => readIfThere(kubeconfig).catch(() => undefined)),
    )),
  ];
  for (const text of texts) {
    if (text !== undefined) found.push(...(await secretsOfDocument(text)));
  }
  const cmdline = pid === undefined ? "" : ((await machine.read(`/proc/${pid}/cmdline`)) ?? "");
  const environ = pid === undefined ? "" : ((await machine.read(`/proc/${pid}/environ`)) ?? "");
  const settings = (await machine.read("/etc/remora/remora.env")) ?? "";
  found.push(...secretsOfEnvironment(environ.split("\0")));
  found.push(...secretsOfEnvironment(settings.split("\n")));
  found.push(...secretsOfFlags(cmdline.split("\0")));
  found.push(...secretsOfFlags(settings.split(/[\s="']+(?=--)|[\s"']+/)));
  const certDir = /"certDir":\s*"([^"]+)"/.exec(
    (await machine.read(join(rootDir, "places.json"))) ?? "",
  )?.[1];
  const files = [
    ...ofControlPlane,
    ...(await filesIn(machine, join(stateDir, "control-plane", "pki"))),
    ...(await filesIn(machine, certDir ?? join(rootDir, "pki"))),
    ...(await filesIn(machine, stateDir)),
    ...["token-file", "bootstrap-token-file"].flatMap((flag) => flagOf(cmdline, flag) ?? []),
  ];
  for (const path of files) {
    if (!/\.(?:key|pem)$|token/i.test(basename(path))) continue;
    found.push((await machine.read(path)) ?? "");
  }
  return found.filter((value) => value !== "");
}
