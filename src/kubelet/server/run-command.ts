import { RuntimeError } from "../../runtime/errors.ts";
import { HttpRefusal } from "./http-refusal.ts";
import { findForStreaming } from "./pod-route.ts";
import type { Exchange, RouteDeps } from "./route.ts";

/** What CRI streams carry of such an answer at most. */
const maxBytes = 16 * 1024 * 1024;
/** setTimeout's largest: upstream sets no deadline, the caller's leaving ends the command. */
const noDeadlineMs = 2_147_483_647;

/**
 * POST /run/{namespace}/{pod}[/{uid}]/{container}?cmd=: what the command printed, both outputs one after the other.
 *
 * @throws {HttpRefusal} with upstream's texts.
 */
export async function serveRun(
  deps: RouteDeps,
  { params, response, url }: Exchange,
  signal: AbortSignal,
): Promise<void> {
  const { namespace = "", pod = "", uid, container = "" } = params;
  const { containerID } = await findForStreaming(deps.pods, { namespace, pod, uid, container });
  // Upstream splits so; whoever needs more uses exec.
  const command = (url.searchParams.get("cmd") ?? "").split(" ");
  const limits = { timeoutMs: noDeadlineMs, maxBytes };
  let result;
  try {
    result = await deps.runtime.execSync(containerID, command, limits, signal);
  } catch (error) {
    if (!(error instanceof RuntimeError)) throw error;
    throw new HttpRefusal(500, error.message);
  }
  const { exitCode, stderr, stdout } = result;
  if (exitCode !== 0) {
    const text = `command '${command.join(" ")}' exited with ${exitCode}: ${Buffer.from(stderr).toString()}`;
    throw new HttpRefusal(500, text);
  }
  response.writeHead(200, { "Content-Type": "application/json" });
  response.end(Buffer.concat([stdout, stderr]));
}

/**
 * POST /checkpoint/{namespace}/{pod}/{container}: the engine's checkpoints cannot leave it as CRI's archives, so all that
 * can be told is what is wrong.
 *
 * @throws {HttpRefusal} always, with upstream's texts.
 */
export async function refuseCheckpoint(
  { pods }: RouteDeps,
  { params, url }: Exchange,
): Promise<never> {
  const { namespace = "", pod = "", container = "" } = params;
  const found = await pods.findContainer({ namespace, pod, container }, { previous: false });
  if (found.kind === "podNotFound") throw new HttpRefusal(404, "pod does not exist");
  if (found.kind === "containerNotFound") {
    throw new HttpRefusal(404, `container ${container} does not exist`);
  }
  const timeout = url.searchParams.getAll("timeout").at(-1);
  if (timeout !== undefined && !/^[-+]?\d{1,18}$/.test(timeout)) {
    throw new HttpRefusal(404, "cannot parse value of timeout parameter");
  }
  const reason =
    "rpc error: code = Unimplemented desc = method CheckpointContainer not implemented";
  throw new HttpRefusal(
    500,
    `checkpointing of ${namespace}/${pod}/${container} failed (${reason})`,
  );
}
