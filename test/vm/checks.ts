import type { Check } from "./check.ts";
import { firstChecks, lastChecks } from "./checks/life.ts";
import { privilegeChecks } from "./checks/privileges.ts";
import { resourceChecks } from "./checks/resources.ts";
import { storageChecks } from "./checks/storage.ts";

/** All checks, in the order in which they run. */
export const checks: readonly Check[] = [
  ...firstChecks,
  ...resourceChecks,
  ...privilegeChecks,
  ...storageChecks,
  ...lastChecks,
];
