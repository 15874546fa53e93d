import type { Node } from "../../api/types.gen.ts";

/** One line on a node for `systemctl status`. */
export function nodeWords(node: Pick<Node, "metadata" | "status"> | undefined): string {
  if (node === undefined) return "the API server has not answered yet; pods run on";
  const name = node.metadata?.name ?? "";
  const ready = node.status?.conditions?.find(({ type }) => type === "Ready");
  if (ready?.status === "True") return `node ${name} is Ready`;
  const why = ready?.message ?? "";
  return `node ${name} is not Ready${why === "" ? "" : `: ${why}`}`;
}
