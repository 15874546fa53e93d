import type { Container, ImageVolumeSource } from "../../api/types.gen.ts";

const component = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const host =
  "(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?";
const reference = new RegExp(
  `^(?:${host}/)?${component}(?:/${component})*(?::[\\w][\\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$`,
);

/** The image reference with `:latest` where neither tag nor digest is given; undefined when it is not a reference. */
export function imageReference(image: string): string | undefined {
  if (!reference.test(image)) return undefined;
  const [name = ""] = image.split("@");
  const tagged = name.slice(name.lastIndexOf("/") + 1).includes(":");
  return image.includes("@") || tagged ? image : `${image}:latest`;
}

export type PullPolicy = "Always" | "IfNotPresent" | "Never";

/** When to pull; the API defaults this field, so the fallback only matters for objects made by hand. */
function policyOf(image: string, policy: PullPolicy | undefined): PullPolicy {
  if (policy !== undefined) return policy;
  return (imageReference(image) ?? "").endsWith(":latest") ? "Always" : "IfNotPresent";
}

/** When to pull the image of a container. */
export function pullPolicy({ image = "", imagePullPolicy }: Container): PullPolicy {
  return policyOf(image, imagePullPolicy);
}

/** When to pull the image of a volume. */
export function volumePullPolicy({
  pullPolicy: policy,
  reference: image = "",
}: ImageVolumeSource): PullPolicy {
  return policyOf(image, policy);
}
