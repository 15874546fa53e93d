import type { EventRecorder } from "../api/event-types.ts";

/** Tells who looks at the Node what its Service proxy cannot do. */
export function nodeWarning(
  events: EventRecorder,
  name: string,
  reason: string,
  message: string,
): void {
  const node = { kind: "Node", apiVersion: "v1", namespace: "", name, uid: name };
  events.event(node, "Warning", reason, message);
}
