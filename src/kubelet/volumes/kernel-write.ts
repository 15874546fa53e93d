import { type HostPrograms, runChecked } from "./host-programs.ts";

const writeMs = 30_000;

/**
 * Writes to a file of sysfs. By another process: the kernel may wait for the disk that it is about.
 *
 * @throws {ExecError}
 */
export async function writeKernelFile(
  programs: HostPrograms,
  path: string,
  text: string,
  signal: AbortSignal,
): Promise<void> {
  const script = 'printf %s "$1" > "$2"';
  await runChecked(programs, ["sh", "-c", script, "sh", text, path], writeMs, signal);
}
