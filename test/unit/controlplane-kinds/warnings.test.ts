import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { templateAnnotationWarnings } from "../../../src/controlplane/kinds/annotation-warnings.ts";
import { podSpecWarnings } from "../../../src/controlplane/kinds/pod-warnings.ts";
import type { JsonObject } from "../../../src/controlplane/types.ts";

const nothing = "a null labelSelector results in matching no pod";
const required = "requiredDuringSchedulingIgnoredDuringExecution";
const preferred = "preferredDuringSchedulingIgnoredDuringExecution";
const byLabel = (key: string, values: readonly string[] = []): JsonObject => ({
  matchExpressions: [{ key, operator: "In", values }],
});

const specs: readonly (readonly [string, JsonObject, readonly string[]])[] = [
  [
    "node labels of old versions",
    { nodeSelector: { "beta.kubernetes.io/os": "linux", disk: "ssd" } },
    [
      's.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead',
    ],
  ],
  [
    "the same in node affinity, and values that no label can have where they only count for the order",
    {
      affinity: {
        nodeAffinity: {
          [required]: { nodeSelectorTerms: [byLabel("node-role.kubernetes.io/master", ["a b"])] },
          [preferred]: [{ weight: 1, preference: byLabel("zone", ["ok", "a b"]) }],
        },
      },
    },
    [
      `s.affinity.nodeAffinity.${required}.nodeSelectorTerms[0].matchExpressions[0].key: node-role.kubernetes.io/master is use "node-role.kubernetes.io/control-plane" instead`,
      `s.affinity.nodeAffinity.${preferred}[0].preference.matchExpressions[0].values[1]: a b is invalid, a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`,
    ],
  ],
  [
    "selectors that are not there and so match nothing",
    {
      topologySpreadConstraints: [
        { topologyKey: "zone" },
        { topologyKey: "zone", labelSelector: {} },
      ],
      affinity: {
        podAffinity: { [required]: [{ topologyKey: "zone" }] },
        podAntiAffinity: { [preferred]: [{ podAffinityTerm: { topologyKey: "zone" } }] },
      },
    },
    [
      `s.topologySpreadConstraints[0].labelSelector: ${nothing}`,
      `s.affinity.podAffinity.${required}[0].labelSelector: ${nothing}`,
      `s.affinity.podAntiAffinity.${preferred}[0].podAffinityTerm.labelSelector: ${nothing}`,
    ],
  ],
  [
    "volumes that nobody mounts any more",
    {
      volumes: [
        { name: "a", emptyDir: {} },
        { name: "b", gitRepo: {} },
        { name: "c", storageos: {} },
      ],
    },
    [
      "s.volumes[1].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
      "s.volumes[2].storageOS: deprecated in v1.22, non-functional in v1.25+",
    ],
  ],
  [
    "pull secrets without a name",
    { imagePullSecrets: [{ name: "a" }, {}] },
    ['s.imagePullSecrets[1].name: invalid empty name ""'],
  ],
];

describe("a pod spec is warned of", () => {
  for (const [what, spec, warnings] of specs)
    test(what, () => assert.deepEqual(podSpecWarnings(spec, "s"), warnings));
});

describe("a pod template's annotations are warned of", () => {
  const appArmor = "container.apparmor.security.beta.kubernetes.io/c";
  const seccomp = "seccomp.security.alpha.kubernetes.io/pod";
  const template = (annotations: JsonObject, spec: JsonObject = {}): JsonObject => ({
    metadata: { annotations },
    spec: { containers: [{ name: "c" }], ...spec },
  });
  const warningsOf = (annotations: JsonObject, spec?: JsonObject): readonly string[] =>
    templateAnnotationWarnings(template(annotations, spec), "t");

  test("when a field has taken their place", () => {
    assert.deepEqual(warningsOf({ [seccomp]: "runtime/default", "my/own": "x" }), [
      `t.metadata.annotations[${seccomp}]: non-functional in v1.27+; use the "seccompProfile" field instead`,
    ]);
    assert.deepEqual(warningsOf({ [appArmor]: "unconfined" }), [
      `t.metadata.annotations[${appArmor}]: deprecated since v1.30; use the "appArmorProfile" field instead`,
    ]);
  });

  test("unless the field is set too, or says the same", () => {
    const profile = { securityContext: { seccompProfile: { type: "RuntimeDefault" } } };
    assert.deepEqual(warningsOf({ [seccomp]: "runtime/default" }, profile), []);
    const same = {
      securityContext: { appArmorProfile: { type: "Localhost", localhostProfile: "p" } },
    };
    assert.deepEqual(warningsOf({ [appArmor]: "localhost/p" }, same), []);
    assert.equal(warningsOf({ [appArmor]: "localhost/q" }, same).length, 1);
  });
});
