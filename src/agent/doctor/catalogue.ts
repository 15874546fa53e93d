import type { Check } from "./check.ts";
import { api, certificates } from "./checks/api.ts";
import { clockCheck } from "./checks/clock.ts";
import { disk } from "./checks/disk.ts";
import { engine } from "./checks/engine.ts";
import { firewalls, iptablesMix } from "./checks/firewall.ts";
import { kernel, nft, programs } from "./checks/kernel.ts";
import { cgroups, conntrack, limits, memory } from "./checks/limits.ts";
import { clusterNames, hostNames } from "./checks/names.ts";
import { nodeObject, reversePath } from "./checks/node.ts";
import { leftOvers, otherAgents } from "./checks/others.ts";
import { paths } from "./checks/paths.ts";
import { permissions } from "./checks/permissions.ts";
import { podNetwork, settings } from "./checks/pod-network.ts";
import { portsCheck } from "./checks/ports.ts";
import { capabilities, securityModules } from "./checks/privileges.ts";
import { rules } from "./checks/rules.ts";
import { state, unit } from "./checks/service.ts";
import { translations } from "./checks/translations.ts";

/** All checks, in the order of the report. Those that look at everybody's rules come before those that send packets. */
export const allChecks: readonly Check[] = [
  kernel,
  nft,
  programs,
  cgroups,
  limits,
  memory,
  disk,
  clockCheck,
  capabilities,
  securityModules,
  unit,
  state,
  otherAgents,
  portsCheck,
  engine,
  settings,
  podNetwork,
  firewalls,
  iptablesMix,
  leftOvers,
  conntrack,
  rules,
  translations,
  paths,
  hostNames,
  clusterNames,
  api,
  certificates,
  permissions,
  nodeObject,
  reversePath,
];
