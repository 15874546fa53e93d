/** A socket that was passed to this process (sd_listen_fds(3)). */
export interface PassedFd {
  readonly fd: number;
  /** `FileDescriptorName=` of its unit; `unknown` when nobody gave it a name. */
  readonly name: string;
}

/** What a service manager tells a process that it starts (sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3)). */
export interface ServiceEnvironment {
  /** Where to tell our state; undefined when nobody wants to know. */
  readonly notifySocket: string | undefined;
  /** A socket that is connected to it (systemd/as-service). */
  readonly notifyFd: number | undefined;
  /** Silence after which the process is ended, milliseconds. */
  readonly watchdogMs: number | undefined;
  readonly sockets: readonly PassedFd[];
}

/** All that is meant for one process only: its children must not take it for theirs. */
export const serviceVariables = [
  "NOTIFY_SOCKET",
  "REMORA_NOTIFY_FD",
  "WATCHDOG_USEC",
  "WATCHDOG_PID",
  "LISTEN_PID",
  "LISTEN_FDS",
  "LISTEN_FDNAMES",
  "LISTEN_PIDFDID",
] as const;

type Variables = Readonly<Record<string, string | undefined>>;

/** The first passed socket; they follow each other. */
const firstFd = 3;

function wholeNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function passedSockets(variables: Variables, pid: number): readonly PassedFd[] {
  // What a parent was given and passed on by mistake is not ours.
  if (wholeNumber(variables["LISTEN_PID"]) !== pid) return [];
  const count = Math.min(wholeNumber(variables["LISTEN_FDS"]) ?? 0, 1024);
  const names = variables["LISTEN_FDNAMES"]?.split(":") ?? [];
  return Array.from({ length: count }, (_, at) => ({
    fd: firstFd + at,
    name: names[at] ?? "unknown",
  }));
}

/** @param pid Of this process: variables may have been meant for another. */
export function parseServiceEnvironment(variables: Variables, pid: number): ServiceEnvironment {
  const { NOTIFY_SOCKET: notifySocket = "" } = variables;
  const watchdogPid = variables["WATCHDOG_PID"];
  const microseconds = wholeNumber(variables["WATCHDOG_USEC"]) ?? 0;
  const watched = watchdogPid === undefined || wholeNumber(watchdogPid) === pid;
  return {
    notifySocket: notifySocket === "" ? undefined : notifySocket,
    notifyFd: notifySocket === "" ? undefined : wholeNumber(variables["REMORA_NOTIFY_FD"]),
    watchdogMs: watched && microseconds > 0 ? microseconds / 1000 : undefined,
    sockets: passedSockets(variables, pid),
  };
}
