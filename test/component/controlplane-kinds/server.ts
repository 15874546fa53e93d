import { generateKeyPairSync, randomUUID } from "node:crypto";

import type { ApiClient } from "../../../src/api/client.ts";
import { createAdmission } from "../../../src/controlplane/admission/admission.ts";
import {
  createAuthenticator,
  userOfToken,
  type AuthenticatorOptions,
} from "../../../src/controlplane/auth/authenticator.ts";
import { createAuthorizer } from "../../../src/controlplane/auth/authorizer.ts";
import { ServiceAccountTokens } from "../../../src/controlplane/auth/tokens.ts";
import { createApiHandler } from "../../../src/controlplane/http/api-handler.ts";
import type { ApiHandler } from "../../../src/controlplane/http/call.ts";
import { createInProcessClient } from "../../../src/controlplane/in-process-client.ts";
import { createKinds } from "../../../src/controlplane/kinds/kinds.ts";
import { createRegistry } from "../../../src/controlplane/registry/create-registry.ts";
import { openStore } from "../../../src/controlplane/store/open-store.ts";
import { tokenSigner } from "../../../src/controlplane/token-signer.ts";
import type { KindDefinition, UserInfo } from "../../../src/controlplane/types.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";

const issuer = "https://kubernetes.default.svc.cluster.local";
export const admin: UserInfo = {
  name: "admin",
  uid: "",
  groups: ["system:masters"],
  extra: {},
};

/** An API server with every kind over a store in memory; no sockets. */
export interface Server {
  /** As an administrator. */
  readonly client: ApiClient;
  readonly handler: ApiHandler;
  readonly kinds: readonly KindDefinition[];
  close(): void;
}

/** @param serviceCidrs Ranges of cluster IPs, one of each family. */
export function startServer(serviceCidrs: readonly string[] = ["10.43.0.0/16"]): Server {
  const store = openStore({
    path: ":memory:",
    ephemeralPath: ":memory:",
    isEphemeral: () => false,
    now: () => Date.now(),
  });
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const tokens = new ServiceAccountTokens({
    privateKeyPEM: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    issuer,
  });
  const authentication: AuthenticatorOptions = {
    objects: store,
    tokens,
    audiences: [issuer],
    now: () => Date.now(),
  };
  const authorizer = createAuthorizer({
    objects: store,
    subscribe: (listener) => store.subscribe(listener),
  });
  const kinds = createKinds({
    serviceCidrs,
    nodePorts: { first: 30_000, last: 32_767 },
    randomInt: () => 0,
    objects: () => store,
    signToken: tokenSigner(tokens, { audience: issuer, uuid: () => randomUUID() }),
    authorizer,
    authenticator: createAuthenticator(authentication),
    rules: { rulesFor: () => ({ resourceRules: [], nonResourceRules: [] }) },
    tokenUser: (token, audiences) => userOfToken(token, { ...authentication, audiences }),
  });
  const registry = createRegistry({
    store,
    kinds,
    admission: createAdmission({ randomSuffix: () => "xxxxx" }),
    now: () => Date.now(),
    uuid: () => randomUUID(),
    random: () => 0.5,
  });
  const handler = createApiHandler({
    kinds,
    registry,
    authorizer,
    clock: systemClock,
    logger: silentLogger,
    random: () => 0.5,
    version: {
      major: "1",
      minor: "36",
      gitVersion: "v1.36.0",
      gitCommit: "",
      gitTreeState: "clean",
      buildDate: "2026-01-01T00:00:00Z",
      goVersion: "none",
      compiler: "none",
      platform: "linux/amd64",
    },
  });
  return {
    client: createInProcessClient({ handler, user: admin }),
    handler,
    kinds,
    close: () => store.close(),
  };
}
