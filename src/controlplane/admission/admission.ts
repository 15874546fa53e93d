import type { ControlPlaneAuthorizer } from "../auth/authorizer.ts";
import type { AdmissionPlugin } from "../types.ts";
import { createCertificateChecks } from "./certificates.ts";
import { namespaceLifecycle } from "./namespace-lifecycle.ts";
import { createNodeRestriction } from "./node-restriction.ts";
import { defaultTolerationSeconds, priority, taintNewNodes } from "./pod-plugins.ts";
import { podResize } from "./pod-resize.ts";
import { createEscalationCheck } from "./rbac-escalation.ts";
import { runtimeClass } from "./runtime-class.ts";
import { createServiceAccountPlugin } from "./service-account.ts";
import {
  defaultStorageClass,
  persistentVolumeClaimResize,
  storageObjectInUseProtection,
} from "./storage.ts";

export interface AdmissionDeps {
  /** Five random characters from `bcdfghjklmnpqrstvwxz2456789`, as generated names have them. */
  readonly randomSuffix: () => string;
  /**
   * With it, roles and bindings are checked for rights that their author does not hold, and approvals and signatures of
   * certificates for the right to give them.
   */
  readonly authorizer?: ControlPlaneAuthorizer;
}

/** The built-in admission chain in upstream's order. */
export function createAdmission(deps: AdmissionDeps): readonly AdmissionPlugin[] {
  return [
    namespaceLifecycle,
    createNodeRestriction(),
    createServiceAccountPlugin(deps.randomSuffix),
    taintNewNodes,
    priority,
    defaultTolerationSeconds,
    defaultStorageClass,
    storageObjectInUseProtection,
    persistentVolumeClaimResize,
    runtimeClass,
    ...(deps.authorizer === undefined
      ? []
      : [createEscalationCheck(deps.authorizer), ...createCertificateChecks(deps.authorizer)]),
    podResize,
  ];
}
