/** Which Deployment, and what of it. */
export interface ImageChange {
  readonly deployment: string;
  readonly container: string;
  readonly image: string;
}

/** A program in a pod that answers each line of its input by one line. */
export interface LineSession {
  /**
   * Writes one line and waits for the next line of output.
   *
   * @throws {SetupError} when the program or the way to it ends first; `AbortError`.
   */
  exchange(line: string, signal: AbortSignal): Promise<string>;
  /** Ends the input, which ends the program, and waits for that. Safe to repeat. */
  close(): Promise<void>;
}

/** What a user does to a cluster. Each method is one command; all work in one namespace. */
export interface ClusterTool {
  /** For people: `kubectl v1.36.1`. */
  readonly name: string;
  /** `create -f FILE`: all documents. */
  create(file: string, signal: AbortSignal): Promise<void>;
  /** `delete -f FILE --ignore-not-found`: returns when the objects of the file are gone. */
  delete(file: string, signal: AbortSignal): Promise<void>;
  /** `create -f -` of one Namespace. */
  createNamespace(labels: Readonly<Record<string, string>>, signal: AbortSignal): Promise<void>;
  /** `delete namespace --ignore-not-found`: returns when it is gone, with all that was in it. */
  deleteNamespace(signal: AbortSignal): Promise<void>;
  /** `delete pod --wait=false`. */
  deletePod(name: string, signal: AbortSignal): Promise<void>;
  scale(deployment: string, replicas: number, signal: AbortSignal): Promise<void>;
  setImage(change: ImageChange, signal: AbortSignal): Promise<void>;
  rolloutUndo(deployment: string, signal: AbortSignal): Promise<void>;
  /** `exec -i POD -- ARGV`. */
  openSession(
    pod: string,
    argv: readonly [string, ...string[]],
    signal: AbortSignal,
  ): Promise<LineSession>;
}
