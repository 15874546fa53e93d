import { isRecord, optionalNumber, optionalString } from "../../lib/guard.ts";

/** What a container carries in its label for later readers, so that a restart of the agent loses nothing. */
export interface ContainerNote {
  /** Wait after the run of this container ends before it may start again; 0 for a first run. Milliseconds. */
  readonly backoffMs: number;
  /** Digest of the resources that it was to have; absent for none. */
  readonly resourcesHash?: string;
  readonly terminationMessagePath: string;
  readonly terminationMessagePolicy: "File" | "FallbackToLogsOnError";
  /** File on the host that is bound at the path above. */
  readonly terminationMessageFile: string;
  readonly gracePeriodSeconds: number;
  /** Paths in the container that are read-only with all that is mounted below; absent for none. */
  readonly recursiveReadOnly?: readonly string[];
}

/** What a sandbox carries: all that teardown needs when the API no longer knows the pod. */
export interface SandboxNote {
  readonly gracePeriodSeconds: number;
  /** Path of the pod's cgroup below each hierarchy, no leading slash. */
  readonly cgroupPath: string;
}

function parse(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? value : {};
  } catch {
    return {};
  }
}

/** Reads a note; what is missing or foreign gets harmless values. */
export function parseContainerNote(text: string): ContainerNote {
  const note = parse(text);
  const policy = note["terminationMessagePolicy"];
  const paths = note["recursiveReadOnly"];
  const resourcesHash = optionalString(note["resourcesHash"]);
  return {
    backoffMs: optionalNumber(note["backoffMs"]) ?? 0,
    terminationMessagePath: optionalString(note["terminationMessagePath"]) ?? "",
    terminationMessagePolicy: policy === "FallbackToLogsOnError" ? policy : "File",
    terminationMessageFile: optionalString(note["terminationMessageFile"]) ?? "",
    gracePeriodSeconds: optionalNumber(note["gracePeriodSeconds"]) ?? 30,
    ...(resourcesHash === undefined ? {} : { resourcesHash }),
    ...(Array.isArray(paths) && paths.length > 0 ? { recursiveReadOnly: paths.map(String) } : {}),
  };
}

/** Reads a note; what is missing or foreign gets harmless values. */
export function parseSandboxNote(text: string): SandboxNote {
  const note = parse(text);
  return {
    gracePeriodSeconds: optionalNumber(note["gracePeriodSeconds"]) ?? 30,
    cgroupPath: optionalString(note["cgroupPath"]) ?? "",
  };
}
