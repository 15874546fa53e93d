import type { PodSpec } from "../../../src/api/types.gen.ts";
import type { Manifest } from "../check.ts";
import { qemuDirectory } from "./payload.ts";

const busybox = "docker.io/library/busybox:1.36";
type Container = PodSpec["containers"][number];

function pod(name: string, spec: PodSpec): Manifest {
  return {
    kind: "Pod",
    metadata: { name, labels: { app: name } },
    spec: { terminationGracePeriodSeconds: 1, ...spec },
  };
}

/** Waits for nothing but its end. */
const idle = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done";

/** A pod with one container for each entry, named after its key; they run until they are deleted. */
export function runs(
  name: string,
  containers: Readonly<Record<string, Partial<Container>>>,
  spec: Partial<PodSpec> = {},
): Manifest {
  const all = Object.entries(containers).map(([container, more]) => ({
    name: container,
    image: busybox,
    command: ["sh", "-c", idle],
    ...more,
  }));
  return pod(name, { containers: all, ...spec });
}

/** A container that runs a script; what it prints is its last words. */
export function script(text: string, more: Partial<Container> = {}): Partial<Container> {
  return { command: ["sh", "-c", `exec >/dev/termination-log 2>&1; ${text}`], ...more };
}

/** A pod of containers that run once. */
export function says(
  name: string,
  containers: Readonly<Record<string, Partial<Container>>>,
  spec: Partial<PodSpec> = {},
): Manifest {
  return runs(name, containers, { restartPolicy: "Never", ...spec });
}

type Mounts = NonNullable<Container["volumeMounts"]>;

/** What a container needs to run qemu: the pod's volumes, and its own mounts of them. */
export const qemu: { readonly volumes: PodSpec["volumes"]; readonly volumeMounts: Mounts } = {
  volumes: ["usr", "lib", "lib64"].map((name) => ({
    name,
    hostPath: { path: `${qemuDirectory}/${name}`, type: "Directory" },
  })),
  volumeMounts: ["usr", "lib", "lib64"].map((name) => ({
    name,
    mountPath: `/${name}`,
    readOnly: true,
  })),
};
