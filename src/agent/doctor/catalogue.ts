import type { Check } from "./check.ts";
import { engine } from "./checks/engine.ts";
import { disk } from "./checks/disk.ts";
import { kernel, nft, programs } from "./checks/kernel.ts";
import { cgroups, conntrack, limits, memory } from "./checks/limits.ts";
import { leftOvers, otherAgents } from "./checks/others.ts";
import { portsCheck } from "./checks/ports.ts";
import { capabilities, securityModules } from "./checks/privileges.ts";

/** All checks, in the order of the report. */
export const allChecks: readonly Check[] = [
  kernel,
  nft,
  programs,
  cgroups,
  limits,
  memory,
  disk,
  capabilities,
  securityModules,
  otherAgents,
  portsCheck,
  engine,
  leftOvers,
  conntrack,
];
