/**
 * The runtime seam, in CRI's words (k8s.io/cri-api runtime/v1). It has never heard of v1.Pod; everything is already
 * resolved: environment, host paths, user ids, cgroup parents. Adapters only translate.
 *
 * Rules for all calls: every mutating call is idempotent; "already gone" and "already so" are success; a failure is a
 * {@link RuntimeError}; after `Timeout` or `Unavailable` the caller re-reads before it decides.
 */

/** Identity of a pod sandbox. (uid, attempt) is unique. */
export interface PodSandboxMetadata {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  /** Counts re-creations of the sandbox of the same pod, from 0. */
  readonly attempt: number;
}

/** Where a sandbox's namespace comes from (CRI NamespaceMode). */
export type NamespaceMode = "pod" | "node" | "container";

export interface PodSandboxConfig {
  readonly metadata: PodSandboxMetadata;
  readonly hostname: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Small facts that teardown needs without the API server; JSON text, kept in a label. */
  readonly record: string;
  readonly network: "pod" | "node";
  readonly ipc: "pod" | "node";
  readonly pid: NamespaceMode;
  /** Sysctls of the pod's namespaces, dotted names. */
  readonly sysctls: Readonly<Record<string, string>>;
  /** Parent cgroup, as the runtime's driver spells it; undefined leaves it to the engine. */
  readonly cgroupParent: string | undefined;
  /** Runtime handler (RuntimeClass); empty for the default one. */
  readonly runtimeHandler: string;
  /** /dev/shm bytes; undefined for the engine's default. */
  readonly shmBytes: number | undefined;
}

/** The content of an image, shown by the runtime itself (CRI Mount.image, image_sub_path). */
export interface ImageMount {
  /** Image id as {@link ImageService.imageStatus} returned it. */
  readonly id: string;
  /** The part to show, relative to the image's root, without `..`; empty for all of it. */
  readonly subPath: string;
}

export interface Mount {
  /** Existing absolute path on the host; empty where {@link image} is shown instead. */
  readonly hostPath: string;
  readonly containerPath: string;
  readonly readOnly: boolean;
  readonly propagation: "private" | "hostToContainer" | "bidirectional";
  /** With `readOnly`: also what is mounted below (CRI recursive_read_only). */
  readonly recursiveReadOnly?: boolean;
  /** Shown read-only, whatever the rest says; the runtime needs the feature `imageMounts`. */
  readonly image?: ImageMount;
}

export interface Device {
  readonly hostPath: string;
  readonly containerPath: string;
  /** Any of `r`, `w`, `m`. */
  readonly permissions: string;
}

export interface LinuxResources {
  /** cgroup v1 scale (1024 = one CPU), at least 2. */
  readonly cpuShares: number;
  /** Microseconds per {@link cpuPeriodMicros}; 0 = no limit. */
  readonly cpuQuotaMicros: number;
  readonly cpuPeriodMicros: number;
  /** 0 = no limit. Swap is not added to it. */
  readonly memoryLimitBytes: number;
  /** -1000..1000; adapters clamp what the host forbids and say so. */
  readonly oomScoreAdj: number;
  /** 0 = unset. */
  readonly pidsLimit: number;
}

/** The part of {@link LinuxResources} that a running container can be given anew; units as there. */
export interface ContainerLimits {
  readonly cpuShares: number;
  readonly cpuQuotaMicros: number;
  readonly memoryLimitBytes: number;
}

export type SecurityProfile =
  | { readonly kind: "runtimeDefault" }
  | { readonly kind: "unconfined" }
  /** seccomp: the profile's JSON text; AppArmor: the profile's name. */
  | { readonly kind: "localhost"; readonly profile: string };

export interface LinuxSecurityContext {
  readonly privileged: boolean;
  /** Numeric user; undefined keeps the image's. */
  readonly runAsUser: number | undefined;
  readonly runAsGroup: number | undefined;
  /** Numeric ids added to the process's groups. */
  readonly supplementalGroups: readonly number[];
  readonly supplementalGroupsPolicy: "Merge" | "Strict";
  readonly readOnlyRootFilesystem: boolean;
  readonly noNewPrivileges: boolean;
  readonly addCapabilities: readonly string[];
  readonly dropCapabilities: readonly string[];
  readonly seccomp: SecurityProfile;
  readonly appArmor: SecurityProfile | undefined;
  readonly seLinux:
    | {
        readonly user?: string;
        readonly role?: string;
        readonly type?: string;
        readonly level?: string;
      }
    | undefined;
  readonly unmaskedProc: boolean;
}

export interface ContainerConfig {
  readonly name: string;
  /** Restart count of this container; unique with (pod uid, name). */
  readonly attempt: number;
  /** Image id as {@link ImageService.imageStatus} returned it: what is created can then not differ from what was checked. */
  readonly imageID: string;
  /** Replaces the image's ENTRYPOINT; undefined keeps it. */
  readonly command: readonly string[] | undefined;
  /** Replaces the image's CMD; undefined keeps it unless `command` is set. */
  readonly args: readonly string[] | undefined;
  /** In order; later wins. */
  readonly env: readonly { readonly name: string; readonly value: string }[];
  /** Absolute; undefined keeps the image's. */
  readonly workingDir: string | undefined;
  readonly mounts: readonly Mount[];
  readonly devices: readonly Device[];
  readonly labels: Readonly<Record<string, string>>;
  /** Digest of what a change of must restart the container. */
  readonly specHash: string;
  /** Small facts for later readers (termination message path, grace); JSON text, kept in a label. */
  readonly record: string;
  /** Path below /var/log/pods where `kubectl logs` readers expect the file; the adapter links it. */
  readonly logPath: string;
  readonly logMaxBytes: number;
  readonly logMaxFiles: number;
  readonly stdin: boolean;
  readonly stdinOnce: boolean;
  readonly tty: boolean;
  readonly resources: LinuxResources;
  readonly security: LinuxSecurityContext;
  readonly pid: NamespaceMode;
  /** Container whose pid namespace an ephemeral container joins. */
  readonly targetContainerID: string | undefined;
  /** Overrides the image's STOPSIGNAL, for example `SIGUSR1`. */
  readonly stopSignal: string | undefined;
  readonly terminationGracePeriodSeconds: number;
}

export type ContainerState =
  | { readonly kind: "created"; readonly createdAt: number }
  | {
      readonly kind: "running";
      readonly createdAt: number;
      readonly startedAt: number;
      readonly pid: number;
    }
  | {
      readonly kind: "exited";
      readonly createdAt: number;
      /** 0 when it never started. All times are milliseconds since the epoch. */
      readonly startedAt: number;
      readonly finishedAt: number;
      readonly exitCode: number;
      readonly oomKilled: boolean;
      /** The engine's own text when the process could not be started, else empty. */
      readonly error: string;
    }
  | {
      readonly kind: "unknown";
      readonly createdAt: number;
      /** The runtime did not tell in time: it may run, or have ended. */
      readonly unanswered?: true;
    };

export interface SandboxRecord {
  readonly id: string;
  readonly metadata: PodSandboxMetadata;
  /** The pause process runs. Whether it has its addresses is the network's business. */
  readonly ready: boolean;
  /** Host pid of the pause process while ready. */
  readonly pid: number | undefined;
  readonly network: "pod" | "node";
  readonly createdAt: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly record: string;
  /** Somebody ended its process and started it again: its namespaces are not those that its containers are in. */
  readonly restarted?: boolean;
}

export interface ContainerRecord {
  readonly id: string;
  readonly sandboxID: string;
  readonly podUID: string;
  readonly podName: string;
  readonly podNamespace: string;
  readonly name: string;
  readonly attempt: number;
  readonly state: ContainerState;
  /** Image reference or id the container was created from. */
  readonly image: string;
  readonly imageID: string;
  readonly specHash: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly record: string;
  /** Somebody told the engine to restart it by itself; {@link ContainerRuntime.updateContainer} takes that back. */
  readonly engineRestarts?: boolean;
  /** What the engine holds it to now; undefined when that is not known. */
  readonly limits?: ContainerLimits | undefined;
  /** As whom its first process starts (CRI ContainerUser); undefined when that is not known. */
  readonly user?: LinuxUser | undefined;
  /** Ids of the images that it is shown by {@link Mount.image}; they are in use as long as it exists. */
  readonly mountedImages?: readonly string[];
}

/** Identity of a container's first process. */
export interface LinuxUser {
  readonly uid: number;
  readonly gid: number;
  /** The primary group is one of them. */
  readonly supplementalGroups: readonly number[];
}

/** All that the runtime holds for one pod uid. Newest attempt first in both lists. */
export interface PodRecord {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly sandboxes: readonly SandboxRecord[];
  readonly containers: readonly ContainerRecord[];
}

export type RuntimeFeature =
  /** Images can be shown as volumes: by {@link Mount.image}, or by means of {@link ImageService.imageLayers}. */
  | "imageVolumes"
  /** It takes {@link Mount.image}. */
  | "imageMounts"
  | "recursiveReadOnlyMounts"
  | "userNamespaces"
  | "stopSignal"
  | "supplementalGroupsStrict"
  | "negativeOomScoreAdj"
  | "appArmor"
  | "seLinux"
  | "privileged";

export interface RuntimeInfo {
  /** As in `containerRuntimeVersion`: `docker`, `podman`. */
  readonly name: string;
  readonly version: string;
  readonly apiVersion: string;
  readonly cgroupDriver: "cgroupfs" | "systemd";
  readonly cgroupVersion: 1 | 2;
  readonly rootDir: string;
  /** Where images and writable layers are, when that is not below {@link rootDir}. */
  readonly imageRootDir?: string;
  /** Names of runtime handlers; the empty name is the default one. */
  readonly handlers: readonly string[];
  readonly features: ReadonlySet<RuntimeFeature>;
  /** Handlers with recursive read-only mounts; without it, all of them as the feature says. */
  readonly recursiveReadOnlyHandlers?: ReadonlySet<string>;
  /** Sentences about what this host cannot do, for `remora doctor` and node events. */
  readonly warnings: readonly string[];
}

/** `resync` means "anything may have happened: take a snapshot"; it is sent on every (re)connect. */
export type RuntimeEvent =
  | { readonly kind: "resync" }
  | {
      /** `updated`: somebody gave it other limits. */
      readonly kind: "started" | "exited" | "oom" | "removed" | "updated";
      readonly podUID: string;
      readonly containerID: string;
    };

export interface ExecResult {
  readonly exitCode: number;
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
  /** The deadline passed; the process was killed on the host. */
  readonly timedOut: boolean;
}

/** A running exec or attach. With `tty` everything arrives on stdout. */
export interface StreamSession {
  /** Writes to the process; resolves when it may take more (backpressure). */
  writeStdin(chunk: Uint8Array): Promise<void>;
  /** Half-close: the process sees end of file, its output keeps coming. */
  closeStdin(): void;
  /** Output in arrival order; pulling slowly slows the process down. Ends when both streams ended. */
  readonly output: AsyncIterable<{
    readonly stream: "stdout" | "stderr";
    readonly chunk: Uint8Array;
  }>;
  resize(size: { readonly width: number; readonly height: number }): Promise<void>;
  /** Exit code after `output` ended; undefined for attach. */
  readonly exitCode: Promise<number | undefined>;
  /** Ends the session; for exec the process is killed on the host. */
  abort(): Promise<void>;
}

export interface ContainerRuntime {
  /** Connects, negotiates the API version, probes the host. Call first, and again after `Unavailable`. */
  connect(signal: AbortSignal): Promise<RuntimeInfo>;
  /** Resolves when the engine answers, fails after 5 s; cheap enough for every few seconds. */
  ping(signal: AbortSignal): Promise<void>;
  /** Everything of ours on this host, by uid. Cheap: one list, inspects only for what is not plainly running. */
  snapshot(signal: AbortSignal): Promise<ReadonlyMap<string, PodRecord>>;
  /** The same for one pod; an empty record when the runtime holds nothing. */
  podRecord(uid: string, signal: AbortSignal): Promise<PodRecord>;
  /** Never ends until `signal` aborts; reconnects by itself. Events are hints, records are truth. */
  events(signal: AbortSignal): AsyncIterable<RuntimeEvent>;

  /** Creates and starts a sandbox, or adopts the one of the same (uid, attempt). */
  runPodSandbox(config: PodSandboxConfig, signal: AbortSignal): Promise<SandboxRecord>;
  /** Kills the pause process. Containers must be stopped before. */
  stopPodSandbox(sandboxID: string, signal: AbortSignal): Promise<void>;
  /** Removes the sandbox and what is left of its containers. */
  removePodSandbox(sandboxID: string, signal: AbortSignal): Promise<void>;

  /** Creates (or adopts) the container of (uid, name, attempt); does not start it. Returns its id. */
  createContainer(
    sandbox: SandboxRecord,
    config: ContainerConfig,
    signal: AbortSignal,
  ): Promise<{ readonly id: string; readonly warnings: readonly string[] }>;
  startContainer(containerID: string, signal: AbortSignal): Promise<void>;
  /**
   * Stop signal, then SIGKILL after the grace. Returns when the process is gone. A second call with a smaller grace
   * shortens a running stop; aborting the call does not cancel the stop.
   */
  stopContainer(
    containerID: string,
    gracePeriodSeconds: number,
    signal: AbortSignal,
  ): Promise<void>;
  removeContainer(containerID: string, signal: AbortSignal): Promise<void>;
  /**
   * Gives a running container other limits without a restart. 0 takes none away: what was limited stays so.
   *
   * @throws {RuntimeError} `WrongState` when it uses more memory than it would get.
   */
  updateContainer(containerID: string, limits: ContainerLimits, signal: AbortSignal): Promise<void>;
  /** Path of the newest log file; undefined when the engine keeps none. */
  containerLogPath(containerID: string, signal: AbortSignal): Promise<string | undefined>;

  execSync(
    containerID: string,
    command: readonly string[],
    options: { readonly timeoutMs: number; readonly maxBytes: number },
    signal: AbortSignal,
  ): Promise<ExecResult>;
  exec(
    containerID: string,
    options: {
      readonly command: readonly string[];
      readonly stdin: boolean;
      readonly tty: boolean;
    },
    signal: AbortSignal,
  ): Promise<StreamSession>;
  attach(
    containerID: string,
    options: { readonly stdin: boolean; readonly tty: boolean },
    signal: AbortSignal,
  ): Promise<StreamSession>;
}

export interface Image {
  /** `sha256:...` */
  readonly id: string;
  readonly tags: readonly string[];
  readonly digests: readonly string[];
  readonly sizeBytes: number;
  /** The image's USER: numeric id, or a name, or neither for root. */
  readonly user: { readonly uid?: number; readonly name?: string };
  readonly stopSignal: string | undefined;
  /** The runtime itself needs it; image garbage collection must leave it alone. */
  readonly pinned?: boolean;
}

export interface RegistryAuth {
  readonly username?: string;
  readonly password?: string;
  readonly identityToken?: string;
  readonly registryToken?: string;
  readonly serverAddress?: string;
}

/** How far a pull is. */
export interface PullProgress {
  /** Of the layers that are not here yet. */
  readonly doneBytes: number;
  /** Undefined while the size of a layer is not known. */
  readonly totalBytes: number | undefined;
  /** All is here and is being unpacked. */
  readonly unpacking: boolean;
}

export interface ImageService {
  listImages(signal: AbortSignal): Promise<readonly Image[]>;
  /** Undefined when it is not present. */
  imageStatus(reference: string, signal: AbortSignal): Promise<Image | undefined>;
  /** Aborts when no byte of progress came for `stallMs`. Throws `ImagePullFailed`. */
  pullImage(
    reference: string,
    options: {
      readonly auth: RegistryAuth | undefined;
      readonly stallMs: number;
      /** Told often; must not throw. */
      readonly onProgress?: (progress: PullProgress) => void;
    },
    signal: AbortSignal,
  ): Promise<Image>;
  removeImage(id: string, signal: AbortSignal): Promise<void>;
  /**
   * Directories of an image's layers on this machine, topmost first, as overlayfs stacks them; none for an image without
   * content. Undefined where the runtime keeps no such directories.
   */
  imageLayers?(id: string, signal: AbortSignal): Promise<readonly string[] | undefined>;
}
