import { optionalString } from "../../../lib/guard.ts";
import { probeApi } from "../api-probe.ts";
import { defineCheck, type Finding, judged } from "../check.ts";
import { snapshotOf } from "../snapshot.ts";

/** A certificate that was issued this moment is refused by whoever is behind; leases last 40 s. */
const skewWarningMs = 2000;
const skewErrorMs = 30_000;
const jumpMs = 60_000;
/** Nobody has this program before. */
const programYear = 2025;

function seconds(ms: number): string {
  const whole = Math.round(Math.abs(ms) / 1000);
  return whole < 120 ? `${whole} s` : `${Math.round(whole / 60)} min`;
}

/** Wall-clock time of a process's start, as the kernel counts it from boot. Pure. */
export function startTime(stat: string, uptime: string, now: number): number | undefined {
  // The name in parentheses may hold anything; the start is the twentieth field behind it, in hundredths of seconds.
  const ticks = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
  const up = Number(uptime.split(" ")[0]);
  if (!Number.isFinite(ticks) || !Number.isFinite(up)) return undefined;
  return now - (up * 1000 - ticks * 10);
}

export const clockCheck = defineCheck({
  id: "clock",
  title: "Clock",
  group: "machine",
  looks:
    "this machine's clock beside the API server's, its synchronisation, and jumps since the agent's start",
  reference: "docs/certificates.md",
  problems: {
    "clock-wrong": {
      level: "error",
      means: "This machine's clock and the API server's differ by more than half a minute.",
      cause:
        "One of them is not synchronised: certificates seem expired or not yet valid, tokens are refused, and the node's lease looks old.",
      remedy:
        "timedatectl set-ntp true # apt-get install systemd-timesyncd or chrony; on the other machine too",
    },
    "clock-skewed": {
      level: "warning",
      means: "This machine's clock and the API server's differ by some seconds.",
      cause: "One of them is not synchronised, or the network is very slow.",
      remedy: "timedatectl set-ntp true",
    },
    "clock-not-synchronised": {
      level: "warning",
      means: "Nobody keeps this machine's clock right.",
      cause:
        "No service for NTP runs, or it reaches no server: the clock drifts until certificates are refused.",
      remedy: "apt-get install systemd-timesyncd && timedatectl set-ntp true",
    },
    "clock-unset": {
      level: "error",
      means: "This machine's clock is years behind.",
      cause: "It has no battery-backed clock and no NTP: no certificate is valid in its eyes.",
      remedy: "timedatectl set-ntp true # at once: date -s 2026-01-31",
    },
    "clock-jumped": {
      level: "warning",
      means: "The clock was set since the agent started.",
      cause:
        "NTP came late, or somebody set it: times in events and status of before are wrong. The agent's own waits are not concerned.",
      remedy: "timedatectl timesync-status # or: chronyc tracking",
    },
  },
  collect: async (machine, signal) => {
    const { pid } = machine.site;
    const own = machine.clock.now();
    const snapshot = pid === undefined ? undefined : await snapshotOf(machine, signal);
    const said = Date.parse(optionalString(snapshot?.agent.started) ?? "");
    const stat = pid === undefined ? undefined : await machine.read(`/proc/${pid}/stat`);
    const probes = await probeApi(machine, signal);
    const sync =
      machine.root === ""
        ? await machine.run(["timedatectl", "show", "-p", "NTPSynchronized", "--value"], { signal })
        : undefined;
    return {
      own,
      skewMs: probes.flatMap(({ outcome }) =>
        outcome.kind === "answered" && outcome.serverTime !== undefined
          ? // The header has whole seconds, cut off.
            [outcome.ownTime - (outcome.serverTime + 500)]
          : [],
      )[0],
      synchronised: sync?.exitCode === 0 ? sync.stdout.trim() === "yes" : undefined,
      jumpMs:
        stat === undefined || Number.isNaN(said)
          ? undefined
          : said - (startTime(stat, (await machine.read("/proc/uptime")) ?? "", own) ?? said),
    };
  },
  judge: ({ own, jumpMs: jump, skewMs, synchronised }) => {
    const findings: Finding<
      "clock-wrong" | "clock-skewed" | "clock-not-synchronised" | "clock-unset" | "clock-jumped"
    >[] = [];
    const now = new Date(own);
    if (now.getUTCFullYear() < programYear) {
      findings.push({ problem: "clock-unset", text: `the clock says ${now.toISOString()}` });
    }
    if (skewMs !== undefined && Math.abs(skewMs) > skewWarningMs) {
      const text = `this machine's clock is ${seconds(skewMs)} ${skewMs > 0 ? "ahead of" : "behind"} the API server's`;
      const wrong = Math.abs(skewMs) > skewErrorMs;
      findings.push({ problem: wrong ? "clock-wrong" : "clock-skewed", text });
    }
    if (synchronised === false) {
      findings.push({ problem: "clock-not-synchronised", text: "timedatectl: NTPSynchronized=no" });
    }
    if (jump !== undefined && Math.abs(jump) > jumpMs) {
      findings.push({
        problem: "clock-jumped",
        text: `the agent started at another time than the kernel counts: ${seconds(jump)} apart`,
      });
    }
    const beside = skewMs === undefined ? "" : `, ${seconds(skewMs)} from the API server's`;
    return judged(`${now.toISOString()}${beside}`, findings);
  },
});
