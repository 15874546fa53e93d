import { SetupError } from "../lib/errors.ts";

/**
 * The failpoint of crash tests: `REMORA_CRASH_AT=startContainer` kills this process, as a power cut would, when it is
 * about to take that step; `startContainer:3` at the third time. Unset, steps cost nothing.
 */
export function crashHook(spec: string | undefined, kill: () => void): (name: string) => void {
  if (spec === undefined || spec === "") return () => undefined;
  const match = /^([A-Za-z]+)(?::(\d+))?$/.exec(spec);
  if (match === null) throw new SetupError(`REMORA_CRASH_AT=${spec}: expected STEP or STEP:N`);
  const wanted = match[1];
  let left = Number(match[2] ?? "1");
  return (name) => {
    if (name !== wanted) return;
    left -= 1;
    if (left === 0) kill();
  };
}
