import { errorCode, errorMessage, isAbort } from "../../../lib/errors.ts";
import { isRecord, type JsonRecord, optionalNumber, optionalString } from "../../../lib/guard.ts";
import { defineCheck, type Finding, judged, type Judgement, unknown } from "../check.ts";
import { getJSONOnSocket, getOnSocket } from "../engine-socket.ts";
import type { Machine } from "../machine.ts";
import { listProcesses, type ProcessFacts } from "../processes.ts";

export type EngineAnswer =
  | { readonly kind: "answered"; readonly info: JsonRecord; readonly version: JsonRecord }
  | {
      readonly kind: "silent";
      /** `installed`: dockerd is on this machine. */
      readonly failure: "missing" | "stopped" | "forbidden" | "hangs" | "strange";
      readonly text: string;
    };

export interface EngineFacts {
  readonly socket: string;
  readonly answer: EngineAnswer;
  readonly isRoot: boolean;
  /** `KubeletConfiguration.cgroupDriver` is not asked: Remora takes the engine's. */
  readonly systemd: boolean;
  /** dockerd's own words: daemon.json and command line. */
  readonly daemonConfig: JsonRecord | undefined;
  readonly daemonArgs: readonly string[];
  /** What is wrong with daemon.json; undefined when it can be read. */
  readonly daemonConfigError: string | undefined;
}

async function ask(socket: string, patienceMs: number, signal: AbortSignal): Promise<EngineAnswer> {
  const limited = AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]);
  try {
    const ping = await getOnSocket(socket, "/_ping", limited);
    if (ping.status !== 200) {
      return { kind: "silent", failure: "strange", text: `it answers ${ping.status} to /_ping` };
    }
    const info = await getJSONOnSocket(socket, "/info", limited);
    const version = await getJSONOnSocket(socket, "/version", limited);
    return {
      kind: "answered",
      info: isRecord(info) ? info : {},
      version: isRecord(version) ? version : {},
    };
  } catch (error) {
    signal.throwIfAborted();
    if (isAbort(error)) {
      return { kind: "silent", failure: "hangs", text: `no answer within ${patienceMs / 1000} s` };
    }
    const code = errorCode(error) ?? "";
    const failures: Readonly<Record<string, "missing" | "stopped" | "forbidden">> = {
      ENOENT: "missing",
      ECONNREFUSED: "stopped",
      EACCES: "forbidden",
    };
    return { kind: "silent", failure: failures[code] ?? "strange", text: errorMessage(error) };
  }
}

/** Reads daemon.json, with what is wrong with it. Pure. */
function parseDaemonConfig(
  text: string | undefined,
): Pick<EngineFacts, "daemonConfig" | "daemonConfigError"> {
  if (text === undefined || text.trim() === "") {
    return { daemonConfig: undefined, daemonConfigError: undefined };
  }
  try {
    const value: unknown = JSON.parse(text);
    return { daemonConfig: isRecord(value) ? value : {}, daemonConfigError: undefined };
  } catch (error) {
    return { daemonConfig: undefined, daemonConfigError: errorMessage(error) };
  }
}

/** Several engines may run on a machine: one that is told to listen elsewhere is not the one of this socket. */
function isDaemonOf({ argv, here, name }: ProcessFacts, socket: string): boolean {
  if (name !== "dockerd" || here === false) return false;
  const listens = argv.filter((word) => word.includes("unix://"));
  return listens.length === 0 || listens.some((word) => word.endsWith(socket));
}

async function collect(machine: Machine, signal: AbortSignal): Promise<EngineFacts> {
  const socket = machine.site.dockerSocket;
  const answer = await ask(socket, machine.patienceMs, signal);
  const daemon = (await listProcesses(machine)).find((one) => isDaemonOf(one, socket));
  return {
    socket,
    answer,
    isRoot: machine.isRoot,
    systemd: (await machine.names("/run/systemd")).includes("system"),
    ...parseDaemonConfig(await machine.read("/etc/docker/daemon.json")),
    daemonArgs: daemon?.argv ?? [],
  };
}

/** The oldest API that the agent speaks: of Docker 20.10. */
const leastApi = 41;

type EngineProblem =
  | "engine-missing"
  | "engine-stopped"
  | "engine-forbidden"
  | "engine-hangs"
  | "engine-old"
  | "engine-config-broken"
  | "engine-driver-mismatch"
  | "engine-storage-slow"
  | "engine-no-live-restore"
  | "engine-log-driver"
  | "engine-userns"
  | "engine-rootless"
  | "engine-no-iptables"
  | "engine-no-seccomp"
  | "engine-warning";

const silentProblems = {
  missing: "engine-missing",
  stopped: "engine-stopped",
  forbidden: "engine-forbidden",
  hangs: "engine-hangs",
  strange: "engine-hangs",
} as const;

function strings(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.map(String) : [];
}

function apiMinor(version: JsonRecord): number {
  return Number(/^1\.(\d+)/.exec(optionalString(version["ApiVersion"]) ?? "")?.[1] ?? 0);
}

function iptablesOff({ daemonArgs, daemonConfig }: EngineFacts): boolean {
  return daemonConfig?.["iptables"] === false || daemonArgs.includes("--iptables=false");
}

/** Warnings of the engine that say no more than a check of ours. */
const known =
  /swap limit|bridge-nf-call|CONFIG_CFS|cpu cfs|No memory limit|blkio|insecure|API is accessible/i;

function judgeSettings(facts: EngineFacts, info: JsonRecord): readonly Finding<EngineProblem>[] {
  const findings: Finding<EngineProblem>[] = [];
  const driver = optionalString(info["CgroupDriver"]) ?? "";
  if (facts.systemd && driver !== "systemd" && info["CgroupVersion"] === "2") {
    findings.push({
      problem: "engine-driver-mismatch",
      text: `Docker's cgroup driver is ${driver}, and systemd manages this machine's cgroups`,
    });
  }
  const storage = optionalString(info["Driver"]) ?? "";
  if (["vfs", "devicemapper", "aufs"].includes(storage)) {
    findings.push({
      problem: "engine-storage-slow",
      text: `Docker's storage driver is ${storage}`,
    });
  }
  if (info["LiveRestoreEnabled"] !== true) {
    findings.push({ problem: "engine-no-live-restore", text: "live-restore is off" });
  }
  const logging = optionalString(info["LoggingDriver"]) ?? "json-file";
  const plugins = strings(isRecord(info["Plugins"]) ? info["Plugins"]["Log"] : undefined);
  if (plugins.length > 0 && !plugins.includes("json-file")) {
    findings.push({
      problem: "engine-log-driver",
      text: `its log drivers are ${plugins.join(", ")} (default ${logging})`,
    });
  }
  const security = strings(info["SecurityOptions"]);
  if (security.some((option) => option.startsWith("name=userns"))) {
    findings.push({ problem: "engine-userns", text: "userns-remap is set" });
  }
  if (security.some((option) => option.startsWith("name=rootless"))) {
    findings.push({ problem: "engine-rootless", text: "the engine runs without root" });
  }
  if (!security.some((option) => option.startsWith("name=seccomp"))) {
    findings.push({ problem: "engine-no-seccomp", text: "the engine tells of no seccomp" });
  }
  if (iptablesOff(facts)) {
    findings.push({ problem: "engine-no-iptables", text: "iptables is false" });
  }
  for (const warning of strings(info["Warnings"])) {
    if (known.test(warning)) continue;
    findings.push({ problem: "engine-warning", text: warning.replace(/^WARNING: /, "Docker: ") });
  }
  return findings;
}

function judge(facts: EngineFacts): Judgement<EngineProblem> {
  const { answer, daemonConfigError, socket } = facts;
  const findings: Finding<EngineProblem>[] =
    daemonConfigError === undefined
      ? []
      : [
          {
            problem: "engine-config-broken",
            text: `/etc/docker/daemon.json: ${daemonConfigError}`,
          },
        ];
  if (answer.kind === "silent") {
    if (answer.failure === "forbidden" && !facts.isRoot && findings.length === 0) {
      return unknown(`${socket} is for root and its group: use sudo`);
    }
    findings.push({
      problem: silentProblems[answer.failure],
      text: `no Docker Engine answers on ${socket}: ${answer.text}`,
    });
    return judged("", findings);
  }
  const { info, version } = answer;
  const api = apiMinor(version);
  const name = optionalString(version["Version"]) ?? "unknown";
  if (api < leastApi) {
    findings.push({ problem: "engine-old", text: `Docker ${name} speaks API 1.${api}` });
  }
  findings.push(...judgeSettings(facts, info));
  const containers = optionalNumber(info["ContainersRunning"]) ?? 0;
  return judged(
    `Docker ${name}, API 1.${api}, ${optionalString(info["Driver"]) ?? "?"}, cgroup driver ${optionalString(info["CgroupDriver"]) ?? "?"}, ${containers} containers run`,
    findings,
  );
}

const restart = "systemctl restart docker";

export const engine = defineCheck<EngineProblem, EngineFacts>({
  id: "docker",
  title: "Docker Engine",
  group: "Docker",
  looks: "whether it answers, its version, drivers and the settings that pods depend on",
  reference: "docs/foreign-hands.md",
  problems: {
    "engine-missing": {
      level: "error",
      means: "There is no socket of a Docker Engine.",
      cause: "Docker is not installed, was never started, or listens elsewhere.",
      remedy: "apt-get install docker.io && systemctl enable --now docker # or --docker-socket",
    },
    "engine-stopped": {
      level: "error",
      means: "Nobody listens on the socket of the Docker Engine.",
      cause:
        "dockerd was stopped or has crashed; pods keep running with live-restore, and nothing can be started.",
      remedy: "systemctl restart docker; journalctl -u docker -n 50 --no-pager",
    },
    "engine-forbidden": {
      level: "error",
      means: "The socket of the Docker Engine may not be used.",
      cause:
        "Root itself is kept from it: by SELinux, AppArmor, or a unit with InaccessiblePaths=.",
      remedy: "ls -lZ /var/run/docker.sock; dmesg | grep -i denied",
    },
    "engine-hangs": {
      level: "error",
      means: "The Docker Engine takes connections and does not answer.",
      cause:
        "dockerd waits for a disk, a plug-in or containerd; the node becomes not Ready (container runtime is down).",
      remedy: `${restart} # first, to find out why: kill -USR1 $(pidof dockerd), and read its log`,
    },
    "engine-old": {
      level: "error",
      means: "The Docker Engine is older than 20.10.",
      cause: "Its API is below 1.41, which is the oldest that the agent speaks.",
      remedy:
        "apt-get install docker.io # of a newer release, or docker-ce of Docker's own packages",
    },
    "engine-config-broken": {
      level: "error",
      means: "/etc/docker/daemon.json is no JSON.",
      cause: "A comma or a bracket too many or too few: dockerd does not start the next time.",
      remedy: "dockerd --validate --config-file /etc/docker/daemon.json",
    },
    "engine-driver-mismatch": {
      level: "warning",
      means: "Docker makes cgroups itself beside systemd.",
      cause:
        "With the driver cgroupfs two programs write to one tree of cgroup v2; systemd may take limits of pods back.",
      remedy: `set "exec-opts": ["native.cgroupdriver=systemd"] in /etc/docker/daemon.json && ${restart} # drain the node first`,
    },
    "engine-storage-slow": {
      level: "warning",
      means: "Docker's storage driver is a slow or abandoned one.",
      cause:
        "vfs copies each image for each container; devicemapper and aufs are no longer maintained.",
      remedy: `set "storage-driver": "overlay2" in /etc/docker/daemon.json && ${restart} # images have to be pulled again`,
    },
    "engine-no-live-restore": {
      level: "warning",
      means: "Docker stops all containers when it restarts.",
      cause: "live-restore is off, so an update of Docker ends every pod of the node.",
      remedy: `set "live-restore": true in /etc/docker/daemon.json && systemctl reload docker`,
    },
    "engine-log-driver": {
      level: "error",
      means: "The Docker Engine has no log driver json-file.",
      cause:
        "The agent gives it to every container, whatever the default is, and `kubectl logs` reads its files.",
      remedy: "docker info --format '{{.Plugins.Log}}' # install an engine that has json-file",
    },
    "engine-userns": {
      level: "error",
      means: "Docker maps root in containers to another user (userns-remap).",
      cause:
        "Containers then cannot share the network of the pod's sandbox with the node, and volumes belong to others than the pod says.",
      remedy: `remove userns-remap from /etc/docker/daemon.json && ${restart}`,
    },
    "engine-rootless": {
      level: "error",
      means: "The Docker Engine runs without root.",
      cause:
        "Its containers live in a network namespace of its own, which the node's rules do not reach.",
      remedy:
        "use the system's engine: systemctl enable --now docker; --docker-socket /var/run/docker.sock",
    },
    "engine-no-iptables": {
      level: "warning",
      means: "Docker is told to make no packet rules.",
      cause:
        "iptables is false: containers that are no pods reach nothing outside. Pods are not concerned.",
      remedy: `remove "iptables": false from /etc/docker/daemon.json && ${restart}`,
    },
    "engine-no-seccomp": {
      level: "warning",
      means: "The Docker Engine has no seccomp.",
      cause: "The kernel or the engine was built without it: seccompProfile of pods has no effect.",
      remedy: "apt-get install docker.io # a build with seccomp",
    },
    "engine-warning": {
      level: "warning",
      means: "The Docker Engine warns of something.",
      cause: "It says so itself (docker info).",
      remedy: "docker info # shows it; docs.docker.com/engine/daemon tells what to do",
    },
  },
  collect,
  judge,
});
