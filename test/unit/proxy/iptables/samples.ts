import { type PlannedPort, planPort } from "../../../../src/proxy/plan.ts";
import type { Endpoint, ServicePort } from "../../../../src/proxy/types.ts";
import { rulesContext, servicePort } from "../../../fakes/service-samples.ts";

export { readyEndpoint as endpoint, servicePort as port } from "../../../fakes/service-samples.ts";

export const context = rulesContext({ local: { kind: "cidrs", cidrs: ["10.244.0.0/24"] } });

export function plan(over: Partial<ServicePort>, endpoints: readonly Endpoint[]): PlannedPort {
  return planPort(servicePort(over), endpoints, { name: "here", zone: "" });
}
