import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { type CommandResult, eventually, Machine, type MachineProcess } from "./lib/machine.ts";
import { cannotRun, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();

const image = "busybox:1.36";
/** The pods that most tests look at. */
const pods = `
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: two}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: talker
    image: ${image}
    command: [sh, -c, "echo start; i=0; while true; do i=$((i+1)); echo line $i; sleep 0.5; done"]
    env: [{name: COLOUR, value: blue}]
  - name: web
    image: ${image}
    command: [sh, -c, "mkdir -p /www; echo hi >/www/index.html; exec httpd -f -p 8080 -h /www"]
    ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: crash}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "${image}", command: [sh, -c, "echo bye; exit 3"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: done}
spec:
  restartPolicy: Never
  containers: [{name: c, image: "${image}", command: [echo, all done]}]
---
apiVersion: v1
kind: Pod
metadata: {name: missing}
spec:
  containers: [{name: c, image: "nowhere:1", imagePullPolicy: Never}]
---
apiVersion: v1
kind: Pod
metadata: {name: cat}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "${image}", command: [cat], stdin: true, stdinOnce: true}]
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
metadata: {name: two}
spec: {selector: {app: two}, ports: [{port: 80, targetPort: 8080}]}
`;
/** A controller whose pods no scheduler takes: fast, and enough for all that is about objects. */
const controller = `
apiVersion: v1
kind: ReplicationController
metadata: {name: idle}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: idle}}
    spec: {schedulerName: none, containers: [{name: c, image: busybox}]}
`;

interface Item {
  readonly metadata: {
    readonly name: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly ownerReferences?: readonly unknown[];
  };
  readonly spec: Readonly<Record<string, unknown>>;
  readonly status?: Readonly<Record<string, unknown>>;
}

describe("stock kubectl against the embedded control plane", { skip: skip ?? false }, () => {
  let machine: Machine;
  let remora: MachineProcess | undefined;

  /** Runs `kubectl`; the words are split at blanks, a list is taken as it is. Fails unless the exit code is 0. */
  async function k(command: string | readonly string[], stdin?: string): Promise<string> {
    const result = await attempt(command, stdin);
    assert.equal(result.exitCode, 0, `kubectl ${String(command)}: ${result.stderr}`);
    return result.stdout;
  }

  async function attempt(
    command: string | readonly string[],
    stdin?: string,
  ): Promise<CommandResult> {
    const argv = typeof command === "string" ? command.split(" ") : command;
    return machine.kubectl(argv, {
      allowFailure: true,
      timeoutMs: 30_000,
      ...(stdin === undefined ? {} : { stdin }),
    });
  }

  /** Expects a refusal and returns its words. */
  async function refused(command: string | readonly string[], stdin?: string): Promise<string> {
    const result = await attempt(command, stdin);
    assert.notEqual(result.exitCode, 0, `kubectl ${String(command)} went through`);
    return result.stderr;
  }

  async function shell(script: string): Promise<CommandResult> {
    return machine.exec(["sh", "-c", script], { allowFailure: true, timeoutMs: 30_000 });
  }

  async function read(command: string): Promise<Item> {
    return JSON.parse(await k(`get ${command} -o json`)) as Item;
  }

  async function items(command: string): Promise<readonly Item[]> {
    return (JSON.parse(await k(`get ${command} -o json`)) as { items: readonly Item[] }).items;
  }

  before(async () => {
    machine = await Machine.start("kctl");
    await machine.loadBusybox();
    remora = await remoraUp(machine);
    await k("create -f -", pods);
    await k("wait pod/two pod/cat pod/shell --for=condition=Ready --timeout=25s");
    await k("wait pod/done --for=jsonpath={.status.phase}=Succeeded --timeout=25s");
  });

  after(async () => {
    await remora?.signal("TERM");
    await machine[Symbol.asyncDispose]();
  });

  test("get prints every format, selects, sorts and crosses namespaces", async () => {
    assert.match(
      await k("get pods"),
      /^NAME +READY +STATUS +RESTARTS +AGE\n[^]*^two +2\/2 +Running +0/m,
    );
    assert.match(await k("get pods done missing"), /done +0\/1 +Completed[^]*ErrImageNeverPull/);
    assert.match(await k("get pod two -o wide"), /NOMINATED NODE[^]* 10\.\d+\.\d+\.\d+ +node1 /);
    assert.equal(await k("get pod two -o name"), "pod/two\n");
    assert.match(await k("get pod two -o yaml"), /^apiVersion: v1\nkind: Pod\n/);
    assert.equal(
      await k(["get", "pod", "two", "-o", "jsonpath={.spec.containers[*].name}"]),
      "talker web",
    );
    assert.equal(
      await k("get pod two -o custom-columns=N:.metadata.name,G:.spec.restartPolicy"),
      "N     G\ntwo   Always\n",
    );
    assert.equal(await k("get pods -l app=two -o name"), "pod/two\n");
    assert.equal(await k("get pods --field-selector=status.phase=Succeeded -o name"), "pod/done\n");
    assert.match(
      await refused("get pods --field-selector=spec.foo=1"),
      /field label not supported: spec\.foo/,
    );
    const sorted = await k("get ns --sort-by=.metadata.name -o jsonpath={.items[*].metadata.name}");
    assert.deepEqual(sorted.split(" "), sorted.split(" ").toSorted());
    assert.match(await k("get svc -A"), /^default +kubernetes +ClusterIP +10\./m);
    assert.equal(
      (await attempt("get pods -l app=nobody")).stderr,
      "No resources found in default namespace.\n",
    );
    assert.match(await k("get pod two --show-labels -L app"), /APP +LABELS[^]*two +app=two/);
    assert.match(
      await refused("get pod nope"),
      /^Error from server \(NotFound\): pods "nope" not found/,
    );
    assert.match(await refused("get nope"), /the server doesn't have a resource type "nope"/);
  });

  test("get -w follows a change and a deletion to the end", async () => {
    await k("create cm seen");
    const watching = machine.spawn(
      "timeout 20 kubectl get cm -w --output-watch-events --field-selector=metadata.name=seen".split(
        " ",
      ),
    );
    const shows = (event: string): Promise<true> =>
      eventually(async () => (watching.output().includes(`${event} `) ? true : undefined), {
        timeoutMs: 10_000,
        describe: () => `${event} in ${watching.output()}`,
      });
    await shows("ADDED");
    await k("label cm seen a=b");
    await shows("MODIFIED");
    await k("delete cm seen");
    await shows("DELETED");
    await watching.signal("TERM");
    const events = watching.output().match(/^(ADDED|MODIFIED|DELETED) +seen /gm);
    assert.deepEqual(
      events?.map((line) => line.split(" ")[0]),
      ["ADDED", "MODIFIED", "DELETED"],
    );
  });

  test("describe tells the whole story", async () => {
    const two = await k("describe pod two");
    for (const part of [
      /^Node: +node1\//m,
      /^Status: +Running$/m,
      /^ {2}COLOUR: +blue|COLOUR: {2}blue/m,
      /PodReadyToStartContainers +True[^]*PodScheduled +True/,
      /default-scheduler +Successfully assigned default\/two to node1/,
      /kubelet +.*Container started/,
    ]) {
      assert.match(two, part);
    }
    assert.match(await k("describe pod crash"), /Exit Code: +3/);
    assert.match(await k("describe pod missing"), /ErrImageNeverPull/);
    assert.match(await k("describe node node1"), /Allocatable:[^]*Non-terminated Pods:[^]*two/);
    assert.match(
      await k("describe svc two"),
      /TargetPort: +8080\/TCP\nEndpoints: +10\.[\d.]+:8080/,
    );
    assert.match(await k("describe ns default"), /Status: +Active/);
  });

  test("logs: following, tails, times, earlier runs, and refusals in the API's words", async () => {
    assert.equal(await k("logs done"), "all done\n");
    assert.match(await k("logs done --timestamps"), /^\d{4}-\d\d-\d\dT[\d:.]+Z all done\n$/);
    assert.match(await k("logs two"), /^start\nline 1\n/);
    assert.equal((await k("logs two -c talker --tail=2")).split("\n").length, 3);
    assert.equal(await k("logs two -c talker --limit-bytes=5"), "start");
    assert.match(await k("logs two -c talker --since=1h"), /^start\n/);
    assert.doesNotMatch(await k("logs two -c talker --since=1s"), /start/);
    assert.match(await k("logs two --all-containers --prefix"), /^\[pod\/two\/talker\] start$/m);
    assert.match(await k("logs -l app=two -c talker --tail=1"), /^line \d+\n$/);
    const followed = await machine.exec(
      ["timeout", "2", "kubectl", "logs", "-f", "two", "-c", "talker", "--tail=1"],
      { allowFailure: true },
    );
    assert.ok(followed.stdout.split("\n").length > 3, followed.stdout);
    await eventually(
      async () => {
        const earlier = await attempt("logs crash --previous");
        return earlier.stdout === "bye\n" ? true : undefined;
      },
      { timeoutMs: 30_000, describe: () => k("describe pod crash") },
    );
    assert.equal(
      await refused("logs two -c talker --previous"),
      'Error from server (BadRequest): previous terminated container "talker" in pod "two" not found\n',
    );
    assert.equal(
      await refused("logs missing"),
      'Error from server (BadRequest): container "c" in pod "missing" is waiting to start: ErrImageNeverPull\n',
    );
    assert.match(await refused("logs two -c nope"), /container nope is not valid for pod two/);
  });

  test("exec carries input, output, exit codes and terminals", async () => {
    const failed = await attempt([
      "exec",
      "two",
      "--",
      "sh",
      "-c",
      "echo out; echo err >&2; exit 7",
    ]);
    assert.equal(failed.exitCode, 7);
    assert.equal(failed.stdout, "out\n");
    assert.match(failed.stderr, /^err$/m);
    assert.equal(await k("exec -i two -c web -- wc -c", "x".repeat(300_000)), "300000\n");
    assert.equal((await k("exec two -c web -- head -c 300000 /dev/zero")).length, 300_000);
    assert.match(await refused("exec two -- no-such-program"), /executable file not found/);
    assert.match(
      await refused("exec done -- ls"),
      /cannot exec into a container in a completed pod; current phase is Succeeded/,
    );
    const terminal = await shell(
      `script -qec "kubectl exec -it two -c web -- sh -c 'tty; exit 5'" /dev/null`,
    );
    assert.equal(terminal.exitCode, 5);
    assert.match(terminal.stdout, /^\/dev\/pts\/\d+/);
  });

  test("attach reaches a running container's input, with and without a terminal", async () => {
    const echoed = await shell("(echo one; sleep 0.5; echo two) | kubectl attach -i cat");
    assert.match(echoed.stdout, /one\ntwo\n/);
    const typed = await shell(
      `(sleep 1; echo 'echo is $((6*7))'; sleep 1) | timeout 4 script -qec "kubectl attach -it shell" /dev/null`,
    );
    assert.match(typed.stdout, /is 42/);
  });

  test("cp goes both ways, port-forward reaches a pod and a Service", async () => {
    const copied = await shell(
      "cd /run && mkdir -p out/deep && echo q >out/deep/file && kubectl cp out two:/tmp/in -c web && kubectl cp two:/tmp/in/deep/file back -c web && cat back",
    );
    assert.equal(copied.exitCode, 0, copied.stderr);
    assert.match(copied.stdout, /q\n$/);
    for (const target of ["pod/two 18080:8080", "svc/two 18080:80"]) {
      const forwarded = await shell(`kubectl port-forward ${target} >/run/forward 2>&1 & p=$!
        for i in $(seq 100); do grep -q Forwarding /run/forward && break; sleep 0.2; done
        for i in 1 2; do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 20 127.0.0.1 18080; done; kill $p`);
      assert.equal(forwarded.stdout.match(/^hi$/gm)?.length, 2, forwarded.stdout);
    }
  });

  test("run, with a terminal's ends and exit codes, expose, and every way to delete", async () => {
    const run = ["run", "--image", image, "--restart=Never"];
    const piped = await attempt([...run, "r1", "--rm", "-i", "-q", "--", "cat"], "abc\n");
    assert.match(piped.stdout, /^abc$/m);
    assert.match(await refused("get pod r1"), /NotFound/);
    const failing = await attempt([...run, "r2", "--rm", "-i", "-q", "--", "sh", "-c", "exit 3"]);
    assert.equal(failing.exitCode, 3);
    await k([...run, "r3", "--labels=app=r3", "--port=80", "--expose", "--", "sleep", "100"]);
    assert.match(await k("get svc r3 -o wide"), /80\/TCP +\S+ +app=r3/);
    assert.equal(await k("expose pod r3 --port=81 --name=r3-more"), "service/r3-more exposed\n");
    assert.match(await refused("expose pod r3 --port=81 --name=r3-more"), /already exists/);
    await k("delete svc r3 r3-more");
    assert.match(await k("delete pod r3 --now"), /pod "r3" deleted/);
    await k([...run, "r4", "--labels=app=r4", "--", "sleep", "100"]);
    assert.match(await k("delete pod -l app=r4 --force"), /pod "r4" force deleted/);
    assert.match(await refused("delete pod r4"), /NotFound/);
    assert.equal(await k("delete pod r4 --ignore-not-found"), "");

    await k("create -f -", controller);
    await eventually(
      async () => ((await items("pods -l app=idle")).length === 2 ? true : undefined),
      { timeoutMs: 10_000, describe: () => k("get rc,pods") },
    );
    await k("delete rc idle --cascade=orphan");
    for (const pod of await items("pods -l app=idle"))
      assert.equal(pod.metadata.ownerReferences, undefined);
    await k("create -f -", controller);
    await k("delete rc idle --cascade=foreground");
    assert.deepEqual(await items("pods -l app=idle"), [], "adopted and deleted with their owner");
  });

  test("scale, label, annotate, edit, patch, replace and set image change what they say", async () => {
    await k("create ns change");
    await k("-n change create -f -", controller);
    assert.match(await refused("-n change create -f -", controller), /\(AlreadyExists\)/);
    await k("-n change scale rc idle --replicas=1 --current-replicas=2");
    assert.match(
      await refused("-n change scale rc idle --replicas=4 --current-replicas=2"),
      /Expected replicas to be 2, was 1/,
    );
    await k("-n change label rc idle tier=a");
    assert.match(
      await refused("-n change label rc idle tier=b"),
      /'tier' already has a value \(a\), and --overwrite is false/,
    );
    await k("-n change label rc idle tier=b --overwrite");
    await k("-n change annotate rc idle note=x");
    assert.match(
      await refused("-n change annotate rc idle note=y --overwrite --resource-version=1"),
      /\(Conflict\)/,
    );
    const edited = await shell(
      "EDITOR=\"sed -i 's/replicas: 1/replicas: 0/'\" kubectl -n change edit rc idle",
    );
    assert.equal(edited.stdout, "replicationcontroller/idle edited\n", edited.stderr);
    await k([
      "-n",
      "change",
      "patch",
      "rc",
      "idle",
      "--type=json",
      "-p",
      '[{"op":"add","path":"/metadata/labels/json","value":"1"}]',
    ]);
    await k([
      "-n",
      "change",
      "patch",
      "rc",
      "idle",
      "--type=merge",
      "-p",
      '{"metadata":{"labels":{"merge":"1","tier":null}}}',
    ]);
    // A strategic patch merges containers by name; what it adds comes first.
    await k([
      "-n",
      "change",
      "patch",
      "rc",
      "idle",
      "-p",
      '{"spec":{"template":{"spec":{"containers":[{"name":"new","image":"x"}]}}}}',
    ]);
    await k("-n change set image rc/idle c=busybox:2");
    const rc = await read("rc idle -n change");
    assert.deepEqual(rc.metadata.labels, { app: "idle", json: "1", merge: "1" });
    assert.equal(rc.spec["replicas"], 0);
    assert.equal(
      await k([
        "-n",
        "change",
        "get",
        "rc",
        "idle",
        "-o",
        "jsonpath={.spec.template.spec.containers[*].image}",
      ]),
      "x busybox:2",
    );
    const current = await k("-n change get rc idle -o yaml");
    assert.match(
      await refused(
        "replace -f -",
        current.replace(/resourceVersion: "\d+"/, 'resourceVersion: "1"'),
      ),
      /the object has been modified; please apply your changes to the latest version and try again/,
    );
    assert.match(
      await k("replace -f -", current.replace("replicas: 0", "replicas: 3")),
      /replaced/,
    );
    assert.match(
      await refused('patch svc two -p {"spec":{"clusterIP":"10.96.9.9"}}'),
      /spec\.clusterIPs\[0\]: Invalid value: .*may not change once set/,
    );
    assert.match(
      await refused('patch svc two --type=json -p [{"op":"remove","path":"/spec/nope"}]'),
      /doc is missing path: "\/spec\/nope"/,
    );
    await k("delete ns change");
  });

  test("a running pod gets more without being restarted, and what cannot be is refused", async () => {
    const resources = '{"requests":{"cpu":"20m","memory":"16Mi"},"limits":{"cpu":"40m"}}';
    const overrides = `{"spec":{"containers":[{"name":"sized","image":"${image}","command":["sleep","1000"],"resources":${resources}}]}}`;
    await k(["run", "sized", "--image", image, "--overrides", overrides]);
    await k("wait pod/sized --for=condition=Ready --timeout=20s");
    const resize = (cpu: string): readonly string[] => [
      "patch",
      "pod",
      "sized",
      "--subresource=resize",
      "-p",
      `{"spec":{"containers":[{"name":"sized","resources":{"requests":{"cpu":"${cpu}"},"limits":{"cpu":"80m"}}}]}}`,
    ];
    assert.equal(await k(resize("60m")), "pod/sized patched\n");
    const status = "get pod sized -o jsonpath={.status.containerStatuses[0]";
    await eventually(
      async () =>
        (await k(`${status}.resources.limits.cpu}`)) === "80m" &&
        (await k(`${status}.allocatedResources.cpu}`)) === "60m"
          ? true
          : undefined,
      { timeoutMs: 20_000, describe: () => k("get pod sized -o yaml") },
    );
    assert.equal(await k(`${status}.restartCount}`), "0");
    const cgroups = await shell(
      "cat /sys/fs/cgroup/cpu/kubepods/burstable/pod*/*/cpu.cfs_quota_us /sys/fs/cgroup/kubepods*/*/*/*/cpu.max 2>/dev/null",
    );
    assert.match(cgroups.stdout, /^8000( |$)/m);
    assert.match(
      await refused(resize("90m")),
      /spec\.containers\[0\]\.resources\.requests: Invalid value: "90m": must be less than or equal to cpu limit of 80m/,
    );
    assert.match(
      await refused(
        'patch pod sized --subresource=resize --type=json -p [{"op":"remove","path":"/spec/containers/0/resources/limits"}]',
      ),
      /resource limits cannot be removed/,
    );
    assert.match(
      await refused(resize("80m").map((word) => word.replaceAll("80m", "8000"))),
      /node didn't have enough allocatable resources: cpu, requested: 8000000/,
    );
    await k("delete pod sized --force");
  });

  test("manifests with mistakes are refused in the API's words, warnings are shown", async () => {
    const pod = (spec: string): string =>
      `apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: ${spec}\n`;
    assert.match(
      await refused("create -f -", pod("{containers: []}")),
      /The Pod "bad" is invalid: spec\.containers: Required value/,
    );
    assert.match(
      await refused("create -f -", pod("{foo: 1, containers: [{name: c, image: i}]}")),
      /\(BadRequest\): .*strict decoding error: unknown field "spec\.foo"/,
    );
    assert.match(
      await refused("create -f -", pod("{containers: [{name: c, image: 5}]}")),
      /cannot unmarshal number into Go struct field Container\.spec\.containers\.image of type string/,
    );
    assert.match(
      await refused("create -f -", "apiVersion: v1\nkind: Nonsense\nmetadata: {name: x}\n"),
      /no matches for kind "Nonsense" in version "v1"/,
    );
    assert.match(await refused("-n nowhere create cm x"), /namespaces "nowhere" not found/);
    const doubled = pod(
      "{schedulerName: none, containers: [{name: c, image: i, env: [{name: A, value: a},{name: A, value: b}]}]}",
    );
    const warned = await attempt("create --dry-run=server -f -", doubled);
    assert.equal(warned.exitCode, 0, warned.stderr);
    assert.match(
      warned.stderr,
      /^Warning: spec\.containers\[0\]\.env\[1\]: hides previous definition of "A"/m,
    );
    assert.match(
      (await attempt("get endpoints two")).stderr,
      /^Warning: v1 Endpoints is deprecated/,
    );
  });

  test("apply keeps what others set, diff tells, dry runs leave no trace", async () => {
    const config = (data: string): string =>
      `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied}\ndata: ${data}\n`;
    assert.match(await k("apply -f -", config('{a: "1", b: "2"}')), /created/);
    assert.match(await k("apply -f -", config('{a: "1", b: "2"}')), /unchanged/);
    await k(["patch", "cm", "applied", "-p", '{"data":{"other":"9"}}']);
    const diff = await attempt("diff -f -", config('{a: "3"}'));
    assert.equal(diff.exitCode, 1);
    assert.match(diff.stdout, /^-  a: "1"[^]*^\+  a: "3"/m);
    assert.match(await k("apply --dry-run=server -f -", config('{a: "3"}')), /server dry run/);
    assert.match(await k("apply -f -", config('{a: "3"}')), /configured/);
    assert.equal(
      await k(["get", "cm", "applied", "-o", "jsonpath={.data}"]),
      '{"a":"3","other":"9"}',
    );
    assert.match(await k("create cm ghost --dry-run=server"), /created \(server dry run\)/);
    assert.match(await refused("get cm ghost"), /NotFound/);
  });

  test("nodes are cordoned, drained and tainted", async () => {
    await k(["run", "guest", "--image", image, "--restart=Never", "--", "sleep", "100"]);
    await k("wait pod/guest --for=condition=Ready --timeout=20s");
    assert.equal(await k("cordon node1"), "node/node1 cordoned\n");
    assert.match(await k("get node node1"), /Ready,SchedulingDisabled/);
    assert.match(await refused("drain node1"), /cannot delete.*[Pp]ods that declare no controller/);
    const drain = "drain node1 --force --pod-selector=run=guest --grace-period=1 --timeout=20s";
    assert.match(await k(drain), /node\/node1 drained/);
    assert.match(await refused("get pod guest"), /NotFound/);
    await k("uncordon node1");
    assert.equal(await k("taint node node1 k=v:NoSchedule"), "node/node1 tainted\n");
    await k(["run", "kept-out", "--image", image]);
    await eventually(
      async () =>
        (await k("describe pod kept-out")).includes("untolerated taint") ? true : undefined,
      { timeoutMs: 10_000, describe: () => k("describe pod kept-out") },
    );
    assert.equal(await k("taint node node1 k-"), "node/node1 untainted\n");
    await k("wait pod/kept-out --for=condition=PodScheduled --timeout=10s");
    await k("delete pod kept-out --force");
  });

  test("accounts, tokens, roles: who may do what", async () => {
    await k("create ns rights");
    await k("-n rights create sa reader");
    await k("-n rights create role look --verb=get,list --resource=pods");
    await k("-n rights create rolebinding look --role=look --serviceaccount=rights:reader");
    const reader = "--as=system:serviceaccount:rights:reader";
    assert.equal(await k(`-n rights auth can-i list pods ${reader}`), "yes\n");
    const forbidden = await attempt(`-n rights auth can-i delete pods ${reader}`);
    assert.equal(forbidden.stdout, "no\n");
    assert.equal(forbidden.exitCode, 1);
    const token = (await k("-n rights create token reader --duration=10m")).trim();
    assert.match(
      await k([
        "--token",
        token,
        "auth",
        "whoami",
        "--kubeconfig=/dev/null",
        "--server=https://127.0.0.1:6443",
        "--insecure-skip-tls-verify",
      ]),
      /Username +system:serviceaccount:rights:reader/,
    );
    assert.match(
      await refused(`-n rights get secrets ${reader}`),
      /\(Forbidden\): secrets is forbidden: User "system:serviceaccount:rights:reader" cannot list resource "secrets" in API group "" in the namespace "rights"/,
    );
    await k("-n rights create secret generic pair --from-literal=user=me --from-literal=word=open");
    assert.equal(
      await k([
        "-n",
        "rights",
        "get",
        "secret",
        "pair",
        "-o",
        "go-template={{.data.user | base64decode}}",
      ]),
      "me",
    );
    assert.match(await k("-n rights describe secret pair"), /user: +2 bytes/);
    assert.match(await k("auth whoami"), /system:masters/);
    await k("delete ns rights");
    assert.match(await refused("get ns rights"), /NotFound/);
  });

  test("discovery, documentation, health; and metrics say honestly that they are missing", async () => {
    assert.match(await k("api-resources"), /^pods +po +v1 +true +Pod$/m);
    assert.match(await k("api-versions"), /^discovery\.k8s\.io\/v1$/m);
    assert.match(await k("version"), /Server Version: v1\.36/);
    assert.match(await k("cluster-info"), /control plane.*is running at/);
    assert.match(await k("explain pod.spec.containers.image"), /FIELD: image <string>/);
    assert.match(await refused("explain pod.nope"), /field "nope" does not exist/);
    assert.equal(await k("get --raw /readyz"), "ok");
    assert.equal(await refused("top nodes"), "error: Metrics API not available\n");
    assert.match(await k("events --for pod/two"), /Scheduled +Pod\/two/);
    assert.match(await k("get events --field-selector=reason=Scheduled"), /default\/two to node1/);
  });

  test("wait sees conditions, fields and deletions, and gives up in time", async () => {
    assert.match(
      await k("wait pod/two --for=jsonpath={.status.phase}=Running --timeout=5s"),
      /condition met/,
    );
    assert.match(
      await refused("wait pod/missing --for=condition=Ready --timeout=1s"),
      /timed out waiting for the condition on pods\/missing/,
    );
    await k("delete pod two --wait=false");
    assert.match(await k("get pod two"), /Terminating/);
    assert.match(await k("wait pod/two --for=delete --timeout=20s"), /condition met/);
  });
});
