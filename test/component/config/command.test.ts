import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

const main = join(import.meta.dirname, "../../../src/agent/main.ts");
const fixtures = join(import.meta.dirname, "fixtures");
const kubelet = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function remora(...args: readonly string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(process.execPath, [main, ...args], { timeout: 20_000 }, (error, stdout, stderr) => {
      resolve({ code: typeof error?.code === "number" ? error.code : 0, stdout, stderr });
    });
  });
}

interface Report {
  readonly remarks: readonly {
    readonly severity: string;
    readonly path: string;
    readonly text: string;
  }[];
  readonly fields: readonly {
    readonly kind: string;
    readonly path: string;
    readonly value: unknown;
    readonly from: string | null;
    readonly standing: string;
    readonly change: string;
  }[];
}

async function report(...args: readonly string[]): Promise<Report & { readonly code: number }> {
  const { code, stdout } = await remora("config", "check", "--output", "json", ...args);
  return { ...(JSON.parse(stdout) as Report), code };
}

let directory = "";
/** What kubeadm writes on a machine, with all files that it names. */
let kubeadm = "";

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "remora-config-command-"));
  for (const name of ["ca.crt", "resolv.conf", "kubelet.conf"]) await file(name, "");
  const text = await readFile(join(fixtures, "kubeadm-kubelet.yaml"), "utf8");
  kubeadm = await file(
    "kubeadm-kubelet.yaml",
    text
      .replace("/etc/kubernetes/pki/ca.crt", join(directory, "ca.crt"))
      .replace("/run/systemd/resolve/resolv.conf", join(directory, "resolv.conf")),
  );
});

after(async () => rm(directory, { recursive: true, force: true }));

async function file(name: string, text: string): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, text);
  return path;
}

describe("remora config check", () => {
  test("takes the files and flags of a kubelet that kubeadm set up, as they are", async () => {
    const environment = await readFile(join(fixtures, "kubeadm-flags.env"), "utf8");
    const args = (/"(.*)"/.exec(environment)?.[1] ?? "").split(" ");
    const { code, fields, remarks } = await report(
      "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
      `--kubeconfig=${directory}/kubelet.conf`,
      `--config=${kubeadm}`,
      ...args,
    );
    assert.equal(code, 0);
    assert.deepEqual(
      remarks.filter(({ severity }) => severity !== "ignored"),
      [],
    );
    const set = Object.fromEntries(
      fields.filter(({ from }) => from !== null).map((each) => [each.path, each]),
    );
    assert.deepEqual(set["nodeIPs"]?.value, ["192.0.2.4", "2001:db8::4"]);
    assert.equal(set["nodeIPs"].from, "--node-ip");
    assert.equal(set["hostnameOverride"]?.value, "worker-1");
    assert.equal(set["kubeconfig"]?.value, `${directory}/kubelet.conf`);
    assert.deepEqual(set["registerWithTaints"]?.value, [
      { key: "example.com/new", value: "yes", effect: "NoSchedule" },
    ]);
    assert.equal(set["clusterDomain"]?.from, `${kubeadm}:18`);
    assert.equal(set["podInfraContainerImage"]?.standing, "ignored");
    assert.equal(set["clusterDomain"].change, "new pods");
  });

  test("for people it names value, place and what has no effect", async () => {
    const { code, stdout } = await remora("config", "check", "--config", kubeadm, "-v=5");
    assert.equal(code, 0);
    assert.match(stdout, /^The configuration can be used; 2 of its fields have no effect\.\n/);
    assert.match(
      stdout,
      /kubeadm-kubelet\.yaml:15: KubeletConfiguration\.cgroupDriver: has no effect: the container engine's driver is used\n/,
    );
    assert.match(
      stdout,
      /\n {2}clusterDNS +\["10\.96\.0\.10"\] +\S+kubeadm-kubelet\.yaml:16 \[new pods\]\n/,
    );
    assert.match(stdout, /\n {2}logging\.verbosity +5 +--v \[restart\]\n/);
    assert.doesNotMatch(stdout, /registryBurst/);
    const all = await remora("config", "check", "--all");
    assert.match(all.stdout, /\n {2}registryBurst +10 +default \[restart\]\n/);
  });

  test("ends with 1 for errors, and with --strict for what has no effect", async () => {
    const bad = await remora(
      "config",
      "check",
      "--config",
      await file("bad.yaml", `${kubelet}maxPods: -1\n`),
    );
    assert.equal(bad.code, 1);
    assert.match(bad.stdout, /^The configuration cannot be used: 1 error\.\n/);
    assert.match(
      bad.stdout,
      /bad\.yaml:3: KubeletConfiguration\.maxPods: invalid configuration: maxPods \(--max-pods\) -1 must not be a negative number/,
    );
    assert.equal((await remora("config", "check", "--strict", "--config", kubeadm)).code, 1);
    assert.equal((await remora("config", "check", "--strict", "--max-pods", "20")).code, 0);
  });

  test("tells what `up` decides itself", async () => {
    const errors = async (...args: readonly string[]): Promise<readonly string[]> =>
      (await report("--for", "up", ...args)).remarks
        .filter(({ severity }) => severity === "error")
        .map(({ path }) => path);
    const { code } = await report("--for", "up", "--config", kubeadm);
    assert.equal(code, 1);
    // Its name server and domain are those that `up` has, and it renews its certificates, too.
    assert.deepEqual(await errors("--config", kubeadm), ["authentication.x509.clientCAFile"]);
    assert.deepEqual(await errors("--config", kubeadm, "--service-cidr", "10.97.0.0/16"), [
      "clusterDNS",
      "authentication.x509.clientCAFile",
    ]);
    assert.deepEqual(
      await errors("--service-cidr", "10.97.0.0/16", "--cluster-dns=10.97.0.10"),
      [],
    );
    assert.deepEqual(await errors("--cluster-dns=10.96.0.10,10.96.0.11"), ["clusterDNS"]);
    assert.deepEqual(await errors("--cluster-domain", "example.org"), ["clusterDomain"]);
    assert.equal(
      (await report("--for", "up", "--cluster-cidr", "10.9.0.0/16", "--max-pods=9")).code,
      0,
    );
  });

  test("a flag of nobody is refused with the nearest one", async () => {
    const { code, stderr } = await remora("config", "check", "--max-pod=3");
    assert.equal(code, 1);
    assert.match(stderr, /^error: unknown option '--max-pod=3'; did you mean max-pods\?\n$/);
  });

  test("looks for the files that are named, and says what does not start without them", async () => {
    const { code, remarks } = await report(
      `--config=${kubeadm}`,
      "--kubeconfig=/nonexistent/kubelet.conf",
      "--bootstrap-kubeconfig=/nonexistent/bootstrap.conf",
      "--client-ca-file=/nonexistent/ca.crt",
      "--resolv-conf=/nonexistent/resolv.conf",
      `--tls-cert-file=${directory}`,
      `--tls-private-key-file=${directory}/ca.crt`,
      `--image-credential-provider-config=${directory}/none`,
      `--image-credential-provider-bin-dir=${directory}/ca.crt`,
    );
    assert.equal(code, 1);
    const told = remarks
      .filter(({ severity }) => severity === "error" || severity === "warning")
      .map(({ path, severity, text }) => `${severity} ${path}: ${text.replace(directory, "DIR")}`);
    assert.deepEqual(told, [
      "error bootstrapKubeconfig: /nonexistent/bootstrap.conf is not there; give credentials of this node, or --join",
      "error authentication.x509.clientCAFile: /nonexistent/ca.crt is not there; give the PEM of the cluster's CA",
      "error tlsCertFile: DIR is a directory; give a PEM file",
      "warning resolvConf: /nonexistent/resolv.conf is not there; no pod is made before it is",
      "error imageCredentialProviderConfig: DIR/none is not there; give a CredentialProviderConfig",
      "error imageCredentialProviderBinDir: DIR/ca.crt is not a directory; give the directory of its programs",
    ]);
    const softly = await remora("config", "check", "--resolv-conf=/nonexistent");
    assert.equal(softly.code, 0);
    assert.match(
      softly.stdout,
      /\nThe agent starts, but:\n {2}--resolv-conf: .*\/nonexistent is not/,
    );
  });

  test("weighs what is kept from pods against what this machine has", async () => {
    const { code, stdout } = await remora(
      "config",
      "check",
      "--kube-reserved=cpu=9000,memory=1Mi",
      "--system-reserved=memory=900Ti",
    );
    assert.equal(code, 1);
    assert.match(
      stdout,
      /\n {2}invalid Node Allocatable configuration\. Resource "cpu" has a reservation of 9000 but capacity of \d+\. Expected capacity >= reservation\. Resource "memory"/,
    );
  });

  test("no secret is printed", async () => {
    const path = await file(
      "secret.yaml",
      `${kubelet}staticPodURLHeader: {Authorization: [s3cret]}\n`,
    );
    for (const output of ["text", "json"]) {
      const { stdout } = await remora("config", "check", "--output", output, "--config", path);
      assert.match(stdout, /<masked>/);
      assert.doesNotMatch(stdout, /s3cret/);
    }
  });

  test("what print-defaults prints is a configuration that says nothing", async () => {
    const { stdout } = await remora("config", "print-defaults");
    assert.equal(stdout.match(/^kind: /gm)?.length, 3);
    const path = await file("defaults.yaml", stdout);
    const { stdout: text, code } = await remora("config", "check", "--strict", "--config", path);
    assert.equal(code, 0, text);
  });

  test("refuses what is good by itself and yet no agent would start with", async () => {
    const bad: readonly (readonly [string, string, RegExp])[] = [
      ["--tls-cipher-suites=FOO", "tlsCipherSuites", /^Cipher suite FOO not supported/],
      ["--hostname-override=-bad_", "hostnameOverride", /"-bad_" is not a DNS subdomain name/],
      ["--healthz-port=10250", "", /10250 is also kubeletPort/],
    ];
    for (const [flag, path, text] of bad) {
      const { code, remarks } = await report(flag);
      assert.equal(code, 1, flag);
      assert.equal(remarks.length, 1, flag);
      assert.equal(remarks[0]?.severity, "error");
      assert.equal(remarks[0].path, path);
      assert.match(remarks[0].text, text);
    }
  });
});

describe("remora run", () => {
  test("does not start with a configuration that cannot be used, and says all of it", async () => {
    const path = await file("two.yaml", `${kubelet}maxPods: -1\nreadOnlyPort: 10255\n`);
    const { code, stderr } = await remora("run", "--kubeconfig", "/nowhere", "--config", path);
    assert.equal(code, 1);
    assert.match(stderr, /^remora: the configuration cannot be used:\n/);
    assert.match(stderr, /\n {2}\S+two\.yaml:3: KubeletConfiguration\.maxPods: /);
    assert.match(stderr, /\n {2}\S+two\.yaml:4: \S+readOnlyPort: 10255 is not supported: /);
  });

  test("--help stays short and names the document", async () => {
    const { stdout } = await remora("run", "--help");
    assert.match(stdout, /--config <file>/);
    assert.match(stdout, /docs\/configuration\.md/);
    assert.doesNotMatch(stdout, /--max-pods/);
  });
});
