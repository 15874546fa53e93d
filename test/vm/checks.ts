import type { Check } from "./check.ts";
import { installChecks } from "./checks/install.ts";
import { lifeChecks } from "./checks/life.ts";
import { privilegeChecks } from "./checks/privileges.ts";
import { resourceChecks } from "./checks/resources.ts";
import { serviceChecks } from "./checks/service.ts";
import { shopChecks } from "./checks/shop.ts";
import { storageChecks } from "./checks/storage.ts";

/** All checks, in the order in which they run. */
export const checks: readonly Check[] = [
  ...installChecks,
  ...resourceChecks,
  ...privilegeChecks,
  ...storageChecks,
  ...lifeChecks,
  ...shopChecks,
  ...serviceChecks,
];
