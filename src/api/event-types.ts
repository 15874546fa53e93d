/** `v1.Event` type field. */
export type EventType = "Normal" | "Warning";

/** What an event is about: a pod, one of its containers, the node, a Service. */
export interface EventTarget {
  readonly kind: string;
  readonly apiVersion: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion?: string;
  /** For example `spec.containers{web}`. */
  readonly fieldPath?: string;
}

/** Fire and forget: never throws, never waits; aggregates and limits as client-go's recorder does. */
export interface EventRecorder {
  event(target: EventTarget, type: EventType, reason: string, message: string): void;
}
