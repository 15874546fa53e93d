import { parseQuantity, value } from "../../api/quantity.ts";
import { podRequests } from "../../api/pod-requests.ts";
import type { Pod, ResourceRequirements } from "../../api/types.gen.ts";
import { VolumeError } from "./payload.ts";

const anySize = "HugePages";
const mediumPrefix = "HugePages-";
const resourcePrefix = "hugepages-";

/** Whether the medium of an emptyDir is huge pages, of whatever size. */
export function isHugePages(medium: string): boolean {
  return medium === anySize || medium.startsWith(mediumPrefix);
}

/** The pages that a volume is made of, in bytes. */
export interface HugePages {
  readonly pageBytes: number;
  /** What the pod may use of them. */
  readonly limitBytes: number;
}

function bytesOf(quantity: string): number {
  return Number(value(parseQuantity(quantity)));
}

function sizeOfMedium(medium: string): number {
  try {
    return bytesOf(medium.slice(mediumPrefix.length));
  } catch (cause) {
    throw new VolumeError(`unknown storage medium "${medium}"`, { cause });
  }
}

/** Page sizes that the pod, or one of its containers, has asked for, in bytes. */
function requestedSizes({ spec }: Pod): ReadonlySet<number> {
  const sources: readonly (ResourceRequirements | undefined)[] = [
    spec?.resources,
    ...[...(spec?.containers ?? []), ...(spec?.initContainers ?? [])].map(
      ({ resources }) => resources,
    ),
  ];
  // The API gives a limit without a request the same request.
  const names = sources.flatMap((resources) =>
    Object.keys({ ...resources?.limits, ...resources?.requests }),
  );
  return new Set(
    names
      .filter((name) => name.startsWith(resourcePrefix))
      .map((name) => bytesOf(name.slice(resourcePrefix.length))),
  );
}

function requestedBytes(pod: Pod, pageBytes: number): number {
  for (const [name, bytes] of podRequests(pod)) {
    if (name.startsWith(resourcePrefix) && bytesOf(name.slice(resourcePrefix.length)) === pageBytes)
      return bytes;
  }
  return 0;
}

/**
 * Which pages an emptyDir of this medium has: those that the medium names, or else the only ones that the pod asks for.
 * Pure.
 *
 * @throws {VolumeError} when the pod asks for none of them, or it is not clear which, in the kubelet's words.
 */
export function hugePagesOf(pod: Pod, medium: string): HugePages {
  const requested = requestedSizes(pod);
  if (medium === anySize && requested.size > 1) {
    throw new VolumeError(
      `medium: ${medium} can't be used if container requests multiple huge page sizes`,
    );
  }
  const [pageBytes] = medium === anySize ? requested : [sizeOfMedium(medium)];
  if (pageBytes === undefined || !requested.has(pageBytes)) {
    throw new VolumeError(
      `medium ${medium}: hugePages storage requested, but there is no resource request for huge pages`,
    );
  }
  return { pageBytes, limitBytes: requestedBytes(pod, pageBytes) };
}
