import type { BoundObject, ServiceAccountTokens } from "./auth/tokens.ts";
import type { SignToken } from "./kinds/service-account.ts";

/** Signs what the TokenRequest endpoint asks for; a request without an audience means the API server's own. */
export function tokenSigner(
  tokens: Pick<ServiceAccountTokens, "sign">,
  options: { readonly audience: string; readonly uuid: () => string },
): SignToken {
  return (request) => {
    const issuedAt = Math.floor(request.now / 1000);
    const { pod, secret, node } = request;
    return tokens.sign({
      namespace: request.namespace,
      serviceAccount: request.serviceAccount.name,
      serviceAccountUID: request.serviceAccount.uid,
      audiences: request.audiences.length === 0 ? [options.audience] : request.audiences,
      issuedAt,
      expiresAt: issuedAt + request.expirationSeconds,
      tokenID: options.uuid(),
      bound: boundObject(request),
      // A token bound to a pod also names the pod's node.
      node:
        node?.uid === undefined || (pod === undefined && secret === undefined)
          ? undefined
          : { name: node.name, uid: node.uid },
    });
  };
}

function boundObject(request: Parameters<SignToken>[0]): BoundObject | undefined {
  const { pod, secret, node } = request;
  if (pod !== undefined) return { kind: "Pod", ...pod };
  if (secret !== undefined) return { kind: "Secret", ...secret };
  return node?.uid === undefined ? undefined : { kind: "Node", name: node.name, uid: node.uid };
}
