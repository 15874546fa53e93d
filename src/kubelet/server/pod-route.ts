import type { ContainerLookup, PodView } from "../types.ts";
import { HttpRefusal } from "./http-refusal.ts";

/** `/exec/{namespace}/{pod}[/{uid}]/{container}` and its relatives, decoded. */
export interface ContainerTarget {
  readonly namespace: string;
  readonly pod: string;
  readonly uid: string | undefined;
  readonly container: string;
}

/** Path segments after the route's name, decoded. @throws {HttpRefusal} 400 for broken percent encoding. */
export function pathSegments(path: string): string[] {
  try {
    return path
      .split("/")
      .slice(2)
      .map((segment) => decodeURIComponent(segment));
  } catch (error) {
    throw new HttpRefusal(400, "the path is not properly encoded", { cause: error });
  }
}

/** The container a path names; undefined when the path has another shape. */
export function containerTarget(path: string): ContainerTarget | undefined {
  const segments = pathSegments(path);
  if (segments.length < 3 || segments.length > 4) return undefined;
  const [namespace = "", pod = ""] = segments;
  const container = segments.at(-1) ?? "";
  if (namespace === "" || pod === "" || container === "") return undefined;
  return { namespace, pod, uid: segments.length === 4 ? segments[2] : undefined, container };
}

export type FoundContainer = Extract<ContainerLookup, { readonly kind: "found" }>;

/** The answer of a lookup without what it may refuse. */
export async function lookUp(
  pods: PodView,
  target: ContainerTarget,
  options: { readonly previous: boolean },
): Promise<ContainerLookup> {
  const { uid, ...rest } = target;
  return pods.findContainer(uid === undefined ? rest : { ...rest, uid }, options);
}

/** For exec and attach. @throws {HttpRefusal} with upstream's texts. */
export async function findForStreaming(
  pods: PodView,
  target: ContainerTarget,
): Promise<FoundContainer> {
  const found = await lookUp(pods, target, { previous: false });
  switch (found.kind) {
    case "found":
      if (found.removed === undefined) return found;
      throw new HttpRefusal(500, `container not found ("${target.container}")`);
    case "podNotFound":
      throw new HttpRefusal(404, "pod does not exist");
    case "containerNotFound":
    case "notStarted":
      throw new HttpRefusal(500, `container not found ("${target.container}")`);
  }
}
