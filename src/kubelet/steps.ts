/**
 * Called before every mutating step of a pod's life (failpoint). The agent passes a hook that does nothing, or one that
 * kills the process at a named step, which is how crash safety is proved.
 */
export type StepHook = (name: StepName) => void | Promise<void>;

/** Every mutating step, in the order a pod meets them. Extended together with the executor; tests walk the list. */
export const STEP_NAMES = [
  "makePodCgroup",
  "makePodDirectories",
  "mountVolume",
  "writeVolume",
  "applyOwnership",
  "runPodSandbox",
  "setUpNetwork",
  "pullImage",
  "bindSubPath",
  "createContainer",
  "startContainer",
  "writeStatus",
  "updateContainer",
  "stopContainer",
  "removeContainer",
  "tearDownNetwork",
  "stopPodSandbox",
  "removePodSandbox",
  "tearDownVolume",
  "unmountVolume",
  "removeVolume",
  "removePodDirectories",
  "deletePodObject",
] as const;

export type StepName = (typeof STEP_NAMES)[number];
