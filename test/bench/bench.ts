// npm run bench -- NAME [--quick]: one benchmark, figures on stdout, one JSON object on the last line.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readlinkSync } from "node:fs";

const marker = "REMORA_BENCH_HOST_NETNS";
const names = [
  "dns",
  "network",
  "pods",
  "proxy",
  "runtime",
  "scheduler",
  "streams",
  "volumes",
] as const;
const [name = ""] = process.argv.slice(2);

/** Runs this program again in a network namespace of its own, so that nothing touches the host's rules. */
async function inOwnNamespace(): Promise<number> {
  const script = 'ip link set lo up && exec "$@"';
  const argv = [
    "--net",
    "--",
    "sh",
    "-c",
    script,
    "sh",
    process.execPath,
    ...process.argv.slice(1),
  ];
  const child = spawn("unshare", argv, {
    stdio: "inherit",
    env: { ...process.env, [marker]: readlinkSync("/proc/self/ns/net") },
  });
  const [code] = (await once(child, "close")) as [number | null];
  return code ?? 1;
}

/** Those that make a machine of namespaces. */
const onMachines: Readonly<
  Record<string, () => Promise<(argv: readonly string[]) => Promise<void>>>
> = {
  pods: async () => (await import("./pods.ts")).benchPods,
  streams: async () => (await import("./streams.ts")).benchStreams,
  volumes: async () => (await import("./volumes.ts")).benchVolumes,
};
const onMachine = onMachines[name];

/** Those that run in a network namespace of their own. */
const inNamespaces: typeof onMachines = {
  dns: async () => (await import("./dns.ts")).benchDns,
  network: async () => (await import("./network.ts")).benchNetwork,
  proxy: async () => (await import("./proxy.ts")).benchProxy,
};
const inNamespace = inNamespaces[name];

if (onMachine !== undefined) {
  if (process.getuid?.() === 0) {
    await (
      await onMachine()
    )(process.argv.slice(3));
  } else {
    process.stderr.write(
      `bench: ${name} needs root (namespaces and a dockerd); run it with sudo\n`,
    );
    process.exitCode = 1;
  }
} else if (inNamespace !== undefined) {
  if (process.getuid?.() !== 0) {
    process.stderr.write(`bench: ${name} needs root (network namespaces); run it with sudo\n`);
    process.exitCode = 1;
  } else if (process.env[marker] === undefined) {
    process.exitCode = await inOwnNamespace();
  } else if (readlinkSync("/proc/self/ns/net") === process.env[marker]) {
    throw new Error("still in the host's network namespace");
  } else {
    await (
      await inNamespace()
    )(process.argv.slice(3));
  }
} else if (name === "runtime") {
  process.argv.splice(2, 1);
  await import("./runtime.ts");
} else if (name === "scheduler") {
  process.argv.splice(2, 1);
  await import("./scheduler.ts");
} else {
  process.stderr.write(`bench: name one of ${names.join(", ")}\n`);
  process.exitCode = 2;
}
