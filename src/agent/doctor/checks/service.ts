import { errorMessage } from "../../../lib/errors.ts";
import { checkSchema, readMarker } from "../../ledger/state-marker.ts";
import { remoraVersion } from "../../version.ts";
import { defineCheck, type Finding, judged, skipped } from "../check.ts";
import type { Machine } from "../machine.ts";

/** The unit of the agent: of `up` or of `run`. */
function unitOf(mode: "up" | "run"): string {
  return mode === "up" ? "remora-up.service" : "remora.service";
}

const properties = [
  "LoadState",
  "ActiveState",
  "SubState",
  "Result",
  "NRestarts",
  "Delegate",
  "KillMode",
  "UnitFileState",
] as const;
type Property = (typeof properties)[number];

interface UnitFacts {
  readonly unit: string;
  readonly said: Partial<Record<Property, string>>;
  readonly running: boolean;
  readonly engine: string;
}

async function collectUnit(machine: Machine, signal: AbortSignal): Promise<UnitFacts | undefined> {
  // sd_booted(3). The directory is empty where no unit was made since the boot.
  const isThere = (await machine.names("/run/systemd")).includes("system");
  if (!isThere) return undefined;
  const { mode, pid } = machine.site;
  const unit = unitOf(mode);
  const argv = ["systemctl", "show", unit, `--property=${properties.join(",")}`] as const;
  const shown = await machine.run(argv, { signal });
  const said: Partial<Record<string, string>> = Object.fromEntries(
    (shown?.stdout ?? "").split("\n").flatMap((line) => {
      const at = line.indexOf("=");
      return at < 0 ? [] : [[line.slice(0, at), line.slice(at + 1)]];
    }),
  );
  const engine = await machine.run(["systemctl", "is-enabled", "docker.service"], { signal });
  return { unit, said, running: pid !== undefined, engine: engine?.stdout.trim() ?? "" };
}

type UnitProblem =
  | "unit-failed"
  | "unit-restarting"
  | "unit-not-enabled"
  | "unit-not-delegated"
  | "unit-kills-pods"
  | "engine-not-enabled";

export const unit = defineCheck<UnitProblem, UnitFacts | undefined>({
  id: "systemd",
  title: "Service of systemd",
  group: "machine",
  looks: "the agent's unit: state, restarts, whether it starts at boot, delegation of cgroups",
  reference: "docs/install.md",
  problems: {
    "unit-failed": {
      level: "error",
      means: "The agent's unit has failed.",
      cause: "It ended with an error; the last lines of its log are the reason.",
      remedy: "journalctl -u remora -u remora-up -n 20 --no-pager; systemctl restart remora",
    },
    "unit-restarting": {
      level: "warning",
      means: "systemd has restarted the agent several times.",
      cause:
        "It ends with an error again and again, or the watchdog ends it because it does not work through its tasks.",
      remedy: "journalctl -u remora -u remora-up -p warning -n 50 --no-pager",
    },
    "unit-not-enabled": {
      level: "warning",
      means: "The agent does not start at boot.",
      cause: "Its unit is not enabled: after a reboot the node stays NotReady.",
      remedy: "systemctl enable remora",
    },
    "unit-not-delegated": {
      level: "warning",
      means: "systemd does not leave the agent its cgroups.",
      cause:
        "Delegate= was turned off by a drop-in: systemd may take limits back that the agent sets.",
      remedy: "systemctl revert remora && systemctl daemon-reload && systemctl restart remora",
    },
    "unit-kills-pods": {
      level: "warning",
      means: "Stopping the agent's unit would end programs that have to stay.",
      cause:
        "KillMode= was changed by a drop-in: mounts and helpers of volumes are ended with the agent.",
      remedy: "systemctl revert remora && systemctl daemon-reload",
    },
    "engine-not-enabled": {
      level: "warning",
      means: "Docker does not start at boot.",
      cause: "docker.service is not enabled: after a reboot no pod comes back.",
      remedy: "systemctl enable docker",
    },
  },
  collect: collectUnit,
  judge: (facts) => {
    if (facts === undefined) return skipped("systemd does not run on this machine");
    const { engine, running, said, unit: name } = facts;
    const findings: Finding<UnitProblem>[] = [];
    if (engine === "disabled") {
      findings.push({ problem: "engine-not-enabled", text: "docker.service is disabled" });
    }
    if (said.LoadState !== "loaded") {
      return judged(`${name} is not installed`, findings);
    }
    const base = name.replace(/\.service$/, "");
    if (said.ActiveState === "failed") {
      findings.push({
        problem: "unit-failed",
        text: `${name} failed (${said.Result ?? "?"})`,
        remedy: `journalctl -u ${base} -n 20 --no-pager; systemctl restart ${base}`,
      });
    }
    if (Number(said.NRestarts ?? 0) > 3) {
      findings.push({
        problem: "unit-restarting",
        text: `systemd restarted ${name} ${said.NRestarts} times`,
        remedy: `journalctl -u ${base} -p warning -n 50 --no-pager`,
      });
    }
    if (said.UnitFileState === "disabled" && (running || said.ActiveState === "active")) {
      findings.push({
        problem: "unit-not-enabled",
        text: `${name} is disabled`,
        remedy: `systemctl enable ${base}`,
      });
    }
    if (said.Delegate === "no") {
      findings.push({ problem: "unit-not-delegated", text: `${name} has Delegate=no` });
    }
    if (said.KillMode === "control-group") {
      findings.push({ problem: "unit-kills-pods", text: `${name} has KillMode=control-group` });
    }
    return judged(`${name} ${said.ActiveState ?? ""} (${said.SubState ?? ""})`, findings);
  },
});

interface StateFacts {
  readonly directory: string;
  readonly there: boolean;
  /** Why the directory may not be used; undefined when it may. */
  readonly refusal:
    | { readonly kind: "newer" | "damaged" | "foreign"; readonly text: string }
    | undefined;
  readonly version: string;
  readonly mode: "up" | "run";
}

async function collectState(machine: Machine): Promise<StateFacts> {
  const { mode, stateDir } = machine.site;
  const directory = `${machine.root}${stateDir}`;
  const there = (await machine.names(stateDir)).length > 0;
  const base = { directory: stateDir, there, mode, version: "" };
  try {
    const marker = await readMarker(directory);
    if (marker === undefined) return { ...base, refusal: undefined };
    const version = marker.version;
    if (marker.mode !== mode) {
      const text = `${stateDir} is that of "remora ${marker.mode}"`;
      return { ...base, version, refusal: { kind: "foreign", text } };
    }
    try {
      checkSchema(stateDir, marker, remoraVersion);
    } catch (error) {
      return { ...base, version, refusal: { kind: "newer", text: errorMessage(error) } };
    }
    return { ...base, version, refusal: undefined };
  } catch (error) {
    return { ...base, refusal: { kind: "damaged", text: errorMessage(error) } };
  }
}

const refusals = {
  newer: "state-newer",
  damaged: "state-damaged",
  foreign: "state-foreign",
} as const;

export const state = defineCheck({
  id: "state",
  title: "State directory",
  group: "machine",
  looks: "whose the state directory is, and which version wrote it",
  reference: "docs/upgrade.md",
  problems: {
    "state-newer": {
      level: "error",
      means: "The state directory was written by a newer version.",
      cause:
        "Remora was downgraded: this version does not know what the other one wrote, and does not start.",
      remedy:
        "apt-get install --only-upgrade remora # the version that the message names, or newer",
    },
    "state-damaged": {
      level: "error",
      means: "The mark of the state directory cannot be read.",
      cause: "A disk that was full, or somebody edited it.",
      remedy:
        "rm /var/lib/remora/remora.json # if the directory is Remora's: the next start writes it again",
    },
    "state-foreign": {
      level: "error",
      means: "The state directory is that of the other mode.",
      cause: "A directory of `remora up` cannot be used by `remora run`, nor the other way round.",
      remedy: "give --state-dir (up) or --root-dir (run) another directory, or: remora uninstall",
    },
  },
  collect: collectState,
  judge: ({ directory, refusal, there, version }) => {
    if (!there) return judged(`${directory} is not made yet`, []);
    const findings: Finding<"state-newer" | "state-damaged" | "state-foreign">[] =
      refusal === undefined ? [] : [{ problem: refusals[refusal.kind], text: refusal.text }];
    return judged(`${directory}${version === "" ? "" : `, of version ${version}`}`, findings);
  },
});
