import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { type CommandResult, Machine, type MachineProcess } from "./lib/machine.ts";
import { cannotRun, remoraUp } from "./lib/remora.ts";

const image = "busybox:1.36";
const pods = `
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: ${image}
    command: [sh, -c, "mkdir -p /www; echo hi >/www/index.html; exec httpd -f -p 8080 -h /www"]
---
apiVersion: v1
kind: Pod
metadata: {name: cat}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "${image}", command: [sh, -c, "while read line; do echo got $line; done"], stdin: true}]
---
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "${image}", command: [sh], stdin: true, tty: true}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`;

/** How kubectl may carry its streams: by WebSocket, or as it did before 1.31 and as other clients still do. */
const carriers = ["false", "true"].map((webSocket) => ({
  KUBECTL_REMOTE_COMMAND_WEBSOCKETS: webSocket,
  KUBECTL_PORT_FORWARD_WEBSOCKETS: webSocket,
}));

/** Port-forwards `target` to port 18080 while `work` runs. */
const forwarding = (target: string, work: string): string =>
  `rm -f /run/forward /run/hit*; kubectl port-forward ${target} >/run/forward 2>&1 & p=$!
  for i in $(seq 100); do grep -qs Forwarding /run/forward && break; sleep 0.1; done
  ${work}
  sleep 0.2; kill $p 2>/dev/null; grep -v Forwarding /run/forward | sed -E 's/^E[0-9]+ .*\\] //'`;
const get = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 20 127.0.0.1 18080 | tail -1`;

/** What is walked: a shell script, and what its output must contain whatever the carrier. */
const walk: readonly (readonly [name: string, script: string, expected: RegExp])[] = [
  ["outputs and exit code", "kubectl exec web -- sh -c 'echo out; echo err >&2; exit 7'", /^out$/m],
  ["input to its end", "head -c 300000 /dev/zero | kubectl exec -i web -- wc -c", /^300000$/m],
  ["a megabyte of output", "kubectl exec web -- head -c 1000000 /dev/zero | wc -c", /^1000000$/m],
  [
    "a megabyte there and back, unchanged",
    "head -c 1000000 /dev/urandom >/run/noise; kubectl exec -i web -- cat </run/noise | cmp - /run/noise && echo same",
    /^same$/m,
  ],
  [
    "a command that is not there",
    "kubectl exec web -- no-such-program",
    /executable file not found/,
  ],
  [
    "a container that is not there",
    "kubectl exec web -c nope -- true",
    /container not found|not valid/,
  ],
  ["a pod that is not there", "kubectl exec nope -- true", /pods "nope" not found/],
  [
    "a terminal",
    `script -qec "kubectl exec -it web -- sh -c 'stty size >/dev/null; tty >/dev/null && echo a terminal; exit 5'" /dev/null`,
    /^a terminal/m,
  ],
  [
    "attach to a running input",
    "(echo one; sleep 0.5; echo two; sleep 0.5) | timeout 3 kubectl attach -qi cat",
    /got one\ngot two/,
  ],
  [
    "attach to a terminal",
    `(sleep 1; echo 'echo is $((6*7))'; sleep 1) | timeout 4 script -qec "kubectl attach -qit shell" /dev/null | grep -o 'is 42' | head -1`,
    /^is 42$/m,
  ],
  [
    "a pod for one command",
    `echo abc | kubectl run once --image ${image} --restart=Never --rm -iq -- cat`,
    /^abc$/m,
  ],
  [
    "files there and back",
    "rm -rf /run/there /run/back; mkdir -p /run/there/deep; echo q >/run/there/deep/f; kubectl cp /run/there web:/tmp/t && kubectl cp web:/tmp/t/deep/f /run/back >/dev/null && cat /run/back; kubectl exec web -- rm -r /tmp/t",
    /^q$/m,
  ],
  ["a pod's port, twice", forwarding("pod/web 18080:8080", `${get}; ${get}`), /^hi\nhi$/m],
  [
    "sixteen connections at once",
    forwarding(
      "pod/web 18080:8080",
      `all=; for i in $(seq 16); do (${get}) >/run/hit$i & all="$all $!"; done; wait $all; cat /run/hit* | grep -c hi`,
    ),
    /^16$/m,
  ],
  ["a Service's port", forwarding("svc/web 18080:80", get), /^hi$/m],
  [
    "a port that nothing listens on",
    forwarding("pod/web 18080:81", `${get}; true`).replace("sleep 0.2", "sleep 1"),
    /ECONNREFUSED/,
  ],
];

describe("kubectl over SPDY and over WebSocket", { skip: cannotRun() ?? false }, () => {
  let machine: Machine;
  let remora: MachineProcess | undefined;

  async function shell(
    script: string,
    carrier: Readonly<Record<string, string>> = {},
  ): Promise<CommandResult> {
    const assignments = Object.entries(carrier).map(([name, value]) => `${name}=${value}`);
    return machine.exec(["env", ...assignments, "sh", "-c", script], {
      allowFailure: true,
      timeoutMs: 60_000,
    });
  }

  before(async () => {
    machine = await Machine.start("carr");
    await machine.loadBusybox();
    remora = await remoraUp(machine);
    await machine.kubectl(["create", "-f", "-"], { stdin: pods });
    await machine.kubectl(["wait", "pod", "--all", "--for=condition=Ready", "--timeout=30s"]);
  });

  after(async () => {
    await remora?.signal("TERM");
    await machine[Symbol.asyncDispose]();
  });

  test("each is what it is told to be", async () => {
    const asked = await Promise.all(
      carriers.map(async (carrier) => shell("kubectl exec -v=6 web -- true", carrier)),
    );
    const methods = asked.map(
      ({ stderr }) => /(GET|POST)"? ?(?:url=")?https:\S+\/exec\?/.exec(stderr)?.[1],
    );
    assert.deepEqual(methods, ["POST", "GET"], asked[0]?.stderr);
  });

  for (const [name, script, expected] of walk) {
    test(`${name}: the same by both`, async () => {
      const [spdy, webSocket] = [
        await shell(script, carriers[0]),
        await shell(script, carriers[1]),
      ].map(({ exitCode, stderr, stdout }) => ({
        exitCode,
        stderr,
        // What script(1) echoes for the end of its own input, and what kubectl logs of itself when its stdin ends late.
        stdout: stdout
          .replaceAll("^@", "")
          .replaceAll(/^E\d{4} .*"websocket: close sent"\r?\n/gm, ""),
      }));
      assert.match(`${spdy?.stdout}${spdy?.stderr}`, expected);
      assert.deepEqual(spdy, webSocket);
    });
  }
});
