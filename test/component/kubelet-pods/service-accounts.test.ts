import assert from "node:assert/strict";
import { test } from "node:test";

import { SERVICE_ACCOUNTS } from "../../../src/api/resources.ts";
import { ServiceAccounts } from "../../../src/kubelet/objects/service-accounts.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { startFakeApiServer } from "../../fakes/api-server.ts";
import { pod } from "../../unit/kubelet-pods/builders.ts";

test("a service account is read anew each time; its token is bound to the pod and asked for once", async () => {
  const api = await startFakeApiServer();
  const { signal } = new AbortController();
  try {
    const { client } = api;
    const accounts = new ServiceAccounts({ client, clock: systemClock, random: () => 0 });
    const at = { namespace: "ns", name: "robot" };
    await assert.rejects(accounts.account(at, signal), /not found/);
    const annotations = { "corp.test/role": "puller" };
    const { metadata } = api.put(SERVICE_ACCOUNTS, { metadata: { ...at, annotations } });
    assert.deepEqual(await accounts.account(at, signal), { uid: metadata.uid, annotations });
    const subject = pod({ serviceAccountName: "robot" });
    for (let times = 0; times < 2; times += 1) {
      assert.equal(await accounts.token(subject, "registry", signal), "token-of-robot");
    }
    const asked = (): readonly unknown[] =>
      api.requests.filter(({ method }) => method === "POST").map(({ body }) => body);
    assert.equal(asked().length, 1);
    const { uid } = subject.metadata;
    assert.match(JSON.stringify(asked()[0]), /"audiences":\["registry"\]/);
    assert.match(
      JSON.stringify(asked()[0]),
      new RegExp(`"boundObjectRef":\\{"apiVersion":"v1","kind":"Pod","name":"web","uid":"${uid}"`),
    );
    accounts.forget(uid);
    await accounts.token(subject, "registry", signal);
    assert.equal(asked().length, 2);
  } finally {
    await api.close();
  }
});
