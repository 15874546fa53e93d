import type { JsonObject } from "../types.ts";
import { dig, mapOf, record, records, strings, text } from "./access.ts";
import { at } from "./field-error.ts";
import { labelValueMessages } from "./names.ts";

const deprecatedNodeLabels: Readonly<Record<string, string>> = {
  "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
  "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
  "failure-domain.beta.kubernetes.io/region":
    'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
  "failure-domain.beta.kubernetes.io/zone":
    'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
  "beta.kubernetes.io/instance-type":
    'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
  "app.kubernetes.io/created-by": "deprecated since v1.9",
  "scheduler.alpha.kubernetes.io/preferAvoidPods":
    "deprecated since v1.22; use Taints and Tolerations instead",
  "node-role.kubernetes.io/master": 'use "node-role.kubernetes.io/control-plane" instead',
};

const required = "requiredDuringSchedulingIgnoredDuringExecution";
const preferred = "preferredDuringSchedulingIgnoredDuringExecution";
const matchesNothing = "a null labelSelector results in matching no pod";

/** Why a label of nodes should not be used any more, or undefined. */
export function deprecatedLabelMessage(label: string): string | undefined {
  return Object.hasOwn(deprecatedNodeLabels, label) ? deprecatedNodeLabels[label] : undefined;
}

function labelIsDeprecated(label: string, path: string): string[] {
  const message = deprecatedLabelMessage(label);
  return message === undefined ? [] : [`${path}: ${label} is ${message}`];
}

function termWarnings(term: unknown, path: string, checkValues: boolean): string[] {
  return records(record(term)["matchExpressions"]).flatMap((expression, index) => {
    const place = at(`${path}.matchExpressions`, index);
    const values = checkValues ? strings(expression["values"]) : [];
    return [
      ...labelIsDeprecated(text(expression["key"]), `${place}.key`),
      ...values.flatMap((value, valueIndex) =>
        labelValueMessages(value).map(
          (message) => `${at(`${place}.values`, valueIndex)}: ${value} is invalid, ${message}`,
        ),
      ),
    ];
  });
}

/** What the API warns of in the terms of a NodeSelector; `path` is the list's. */
export function nodeSelectorTermWarnings(terms: unknown, path: string): string[] {
  return records(terms).flatMap((term, index) => termWarnings(term, at(path, index), false));
}

function nodeAffinityWarnings(affinity: Readonly<JsonObject>, path: string): string[] {
  const terms = record(affinity[required])["nodeSelectorTerms"];
  return [
    ...nodeSelectorTermWarnings(terms, `${path}.${required}.nodeSelectorTerms`),
    ...records(affinity[preferred]).flatMap(({ preference }, index) =>
      termWarnings(preference, `${at(`${path}.${preferred}`, index)}.preference`, true),
    ),
  ];
}

function podAffinityWarnings(affinity: Readonly<JsonObject>, path: string): string[] {
  const without = (term: unknown, place: string): string[] =>
    record(term)["labelSelector"] === undefined
      ? [`${place}.labelSelector: ${matchesNothing}`]
      : [];
  return [
    ...records(affinity[required]).flatMap((term, index) =>
      without(term, at(`${path}.${required}`, index)),
    ),
    ...records(affinity[preferred]).flatMap(({ podAffinityTerm }, index) =>
      without(podAffinityTerm, `${at(`${path}.${preferred}`, index)}.podAffinityTerm`),
    ),
  ];
}

/** What the API warns of in where a valid pod spec wants its pods to run; `path` is where the spec is. */
export function placementWarnings(spec: Readonly<JsonObject>, path: string): string[] {
  const labels = Object.keys(mapOf(spec["nodeSelector"]));
  const spread = records(spec["topologySpreadConstraints"]);
  const affinity = (kind: string): Readonly<JsonObject> => record(dig(spec, "affinity", kind));
  return [
    ...labels.flatMap((label) => {
      const message = deprecatedLabelMessage(label);
      return message === undefined ? [] : [`${path}.nodeSelector[${label}]: ${message}`];
    }),
    ...nodeAffinityWarnings(affinity("nodeAffinity"), `${path}.affinity.nodeAffinity`),
    ...spread.flatMap(({ topologyKey, labelSelector }, index) => {
      const place = at(`${path}.topologySpreadConstraints`, index);
      const nothing = `${place}.labelSelector: ${matchesNothing}`;
      return [
        ...labelIsDeprecated(text(topologyKey), `${place}.topologyKey`),
        ...(labelSelector === undefined ? [nothing] : []),
      ];
    }),
    ...podAffinityWarnings(affinity("podAffinity"), `${path}.affinity.podAffinity`),
    ...podAffinityWarnings(affinity("podAntiAffinity"), `${path}.affinity.podAntiAffinity`),
  ];
}
