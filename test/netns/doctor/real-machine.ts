import { type Machine, machineAt } from "../../../src/agent/doctor/machine.ts";
import type { Site } from "../../../src/agent/doctor/site.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { emptySite } from "../../component/doctor/made-machine.ts";
import { sh } from "../namespace.ts";

/** What is really here: a namespace of a test, with an agent as `site` says. */
export function realMachine(site: Partial<Site> = {}): Machine {
  return machineAt({
    clock: systemClock,
    root: "",
    isRoot: true,
    random: Math.random,
    patienceMs: 2000,
    site: { ...emptySite, nodeName: "here", ...site },
  });
}

/** A fresh sysfs, which shows the interfaces of this namespace and not the host's. */
export async function mountOwnSysfs(): Promise<void> {
  await sh("mount", "--make-rprivate", "/");
  await sh("mount", "-t", "sysfs", "sysfs", "/sys");
}
