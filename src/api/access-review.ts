import { isRecord } from "../lib/guard.ts";
import type { ApiClient } from "./client.ts";

/** What is asked for, as SelfSubjectAccessReview has it: `spec.resourceAttributes`. */
export interface AccessAttributes {
  readonly verb: string;
  /** Empty for the core group. */
  readonly group: string;
  readonly resource: string;
  readonly subresource?: string;
  readonly name?: string;
  readonly namespace?: string;
  readonly fieldSelector?: unknown;
}

/**
 * Asks the API server whether the client's own identity may do something (authorization.k8s.io/v1
 * SelfSubjectAccessReview).
 *
 * @param deadlineMs Milliseconds until it is given up; the client's own by default.
 * @returns undefined when the answer says nothing.
 * @throws what the client throws.
 */
export async function mayDo(
  client: Pick<ApiClient, "request">,
  attributes: AccessAttributes,
  { signal, deadlineMs }: { readonly signal: AbortSignal; readonly deadlineMs?: number },
): Promise<boolean | undefined> {
  const answer = await client.request({
    method: "POST",
    path: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    body: {
      apiVersion: "authorization.k8s.io/v1",
      kind: "SelfSubjectAccessReview",
      spec: { resourceAttributes: attributes },
    },
    ...(deadlineMs === undefined ? {} : { deadlineMs }),
    signal,
  });
  const status = isRecord(answer) ? answer["status"] : undefined;
  return isRecord(status) ? status["allowed"] === true : undefined;
}
