import { once } from "node:events";

import { deadline } from "../../lib/clock.ts";
import { errorCode, SetupError } from "../../lib/errors.ts";
import { execResult, spawnStreaming } from "../../lib/exec.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";
import type { ClusterTool, LineSession } from "./cluster-tool.ts";
import { LineQueue } from "./line-queue.ts";

export interface KubectlOptions {
  readonly kubeconfig: string;
  readonly namespace: string;
  /** For what kubectl remembers of the API; removed by whoever made it. */
  readonly cacheDir: string;
  readonly env: Readonly<Record<string, string>>;
}

const commandMs = 60_000;
/** How long a program in a pod may take to end behind the end of its input. */
const closeMs = 5000;

/** The version of the kubectl on PATH; undefined when there is none that runs. */
export async function kubectlVersion(
  env: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    const argv = ["kubectl", "version", "--client", "-o", "json"] as const;
    const result = await execResult(argv, { signal: deadline(signal, commandMs), env });
    if (result.exitCode !== 0) return undefined;
    const answer: unknown = JSON.parse(result.stdout);
    const version = isRecord(answer) ? answer["clientVersion"] : undefined;
    return isRecord(version) ? optionalString(version["gitVersion"]) : undefined;
  } catch (error) {
    signal.throwIfAborted();
    const code = errorCode(error);
    if (code === "ENOENT" || code === "EACCES" || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Does everything by the stock kubectl on PATH. */
export function createKubectlTool(version: string, options: KubectlOptions): ClusterTool {
  const { namespace, env } = options;
  const base = [
    "kubectl",
    `--kubeconfig=${options.kubeconfig}`,
    `--cache-dir=${options.cacheDir}`,
    `--namespace=${namespace}`,
  ] as const;

  const kubectl = async (
    args: readonly string[],
    signal: AbortSignal,
    stdin?: string,
  ): Promise<void> => {
    const limited = deadline(signal, commandMs);
    const result = await execResult([...base, ...args], {
      signal: limited,
      env,
      ...(stdin === undefined ? {} : { stdin }),
    });
    if (result.exitCode !== 0) {
      throw new SetupError(`kubectl ${args.slice(0, 2).join(" ")}: ${result.stderr.trim()}`);
    }
  };

  const openSession = (pod: string, argv: readonly string[], signal: AbortSignal): LineSession => {
    const command = [...base, "exec", "-i", pod, "--", ...argv] as const;
    const cut = new AbortController();
    const child = spawnStreaming(command, {
      signal: AbortSignal.any([signal, cut.signal]),
      env,
      dieWithParent: true,
    });
    const lines = new LineQueue();
    let said = "";
    child.stdout.on("data", (chunk: Buffer) => lines.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString("utf8")));
    const ended = async (): Promise<void> => {
      await once(child, "close");
      lines.end(
        `kubectl exec ${pod} ended: ${said.trim() || `exit code ${child.exitCode ?? "?"}`}`,
      );
    };
    const closed = ended();
    return {
      exchange: (line, inner) => {
        child.stdin.write(`${line}\n`);
        return lines.next(inner);
      },
      close: async () => {
        child.stdin.end();
        const timer = setTimeout(() => cut.abort(), closeMs);
        await closed;
        clearTimeout(timer);
      },
    };
  };

  return {
    name: `kubectl ${version}`,
    create: (file, signal) => kubectl(["create", "-f", file], signal),
    delete: (file, signal) => kubectl(["delete", "-f", file, "--ignore-not-found"], signal),
    createNamespace: (labels, signal) => {
      const metadata = { name: namespace, labels };
      const manifest = JSON.stringify({ apiVersion: "v1", kind: "Namespace", metadata });
      return kubectl(["create", "-f", "-"], signal, manifest);
    },
    deleteNamespace: (signal) =>
      kubectl(["delete", "namespace", namespace, "--ignore-not-found"], signal),
    deletePod: (name, signal) => kubectl(["delete", "pod", name, "--wait=false"], signal),
    scale: (deployment, replicas, signal) =>
      kubectl(["scale", `deployment/${deployment}`, `--replicas=${replicas}`], signal),
    setImage: ({ deployment, container, image }, signal) =>
      kubectl(["set", "image", `deployment/${deployment}`, `${container}=${image}`], signal),
    rolloutUndo: (deployment, signal) =>
      kubectl(["rollout", "undo", `deployment/${deployment}`], signal),
    openSession: (pod, argv, signal) => Promise.resolve(openSession(pod, argv, signal)),
  };
}
