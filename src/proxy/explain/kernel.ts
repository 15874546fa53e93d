import type { RulesContext } from "../backend.ts";
import type { FrontendIndex } from "../frontend-index.ts";
import type { PlannedPort } from "../plan.ts";

/** What the kernel should have of a Service in one family. */
export interface WantedRules {
  readonly context: RulesContext;
  /** Plans of the Service. */
  readonly plans: readonly PlannedPort[];
  /** All Services, with these plans among them. */
  readonly claims: FrontendIndex;
}

/** Something of ours in the kernel that carries a Service, in the words of the program that wrote it. */
export interface CarriedRule {
  /** `map svc`, `chain c2`, `nat KUBE-SVC-...`. */
  readonly where: string;
  readonly rule: string;
  /** Of a rule that counts: packets that met it. In a nat table these are the first packets of flows. */
  readonly packets?: number;
}

/** What the kernel has and what it should have; undefined = nothing. */
export interface RuleDrift {
  readonly where: string;
  readonly key: string;
  readonly wanted: string | undefined;
  readonly found: string | undefined;
}

/** The kernel's side of a Service in one family. */
export interface KernelView {
  /** `nft ip remora-proxy`, `iptables`. */
  readonly program: string;
  readonly carried: readonly CarriedRule[];
  /** Empty: as it should be. */
  readonly drift: readonly RuleDrift[];
}
