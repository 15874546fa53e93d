import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const types = readFileSync(join(root, "src/api/types.gen.ts"), "utf8");
const page = readFileSync(join(root, "docs/pod-fields.md"), "utf8");

/** Names of the fields of a generated interface. */
function fieldsOf(name: string): readonly string[] {
  const body = new RegExp(`^export interface ${name} \\{\\n(.*?)^\\}`, "ms").exec(types)?.[1];
  assert.ok(body !== undefined, `the API has no type ${name}`);
  return [...body.matchAll(/^ {2}(\w+)\??:/gm)].map(([, field = ""]) => field);
}

interface Row {
  readonly field: string;
  readonly what: string;
  readonly where: string;
  readonly seenBy: string;
}

/** The tables of the page by their headings. */
function tables(): ReadonlyMap<string, readonly Row[]> {
  const out = new Map<string, readonly Row[]>();
  for (const section of page.split(/^## /m).slice(1)) {
    const rows = [...section.matchAll(/^\| `(\w+)` \|(.*)\|([^|]*)\|([^|]*)\|$/gm)];
    out.set(
      section.split("\n")[0] ?? "",
      rows.map(([, field = "", what = "", where = "", seenBy = ""]) => ({
        field,
        what: what.trim(),
        where: where.trim(),
        seenBy: seenBy.trim(),
      })),
    );
  }
  return out;
}

/** Types whose fields must all be on the page; a table for another one is checked as well. */
const required = [
  "PodSpec",
  "Container",
  "ContainerPort",
  "PodSecurityContext",
  "SecurityContext",
  "Capabilities",
  "Lifecycle",
  "LifecycleHandler",
  "EnvVar",
  "EnvVarSource",
  "FileKeySelector",
  "EnvFromSource",
  "VolumeMount",
  "VolumeDevice",
  "PersistentVolumeSpec",
  "PersistentVolumeClaimVolumeSource",
  "ConfigMapVolumeSource",
  "SecretVolumeSource",
  "KeyToPath",
  "DownwardAPIVolumeSource",
  "DownwardAPIVolumeFile",
  "ProjectedVolumeSource",
  "VolumeProjection",
  "ConfigMapProjection",
  "SecretProjection",
  "DownwardAPIProjection",
  "ServiceAccountTokenProjection",
  "ClusterTrustBundleProjection",
];

const testFolders: Readonly<Record<string, readonly string[]>> = {
  unit: ["test/unit/kubelet-pods", "test/unit/kubelet-volumes-local"],
  component: [
    "test/component/kubelet-pods",
    "test/component/kubelet-objects",
    "test/component/kubelet-volumes-local",
    "test/component/kubelet-claims",
  ],
  docker: [
    "test/docker/runtime",
    "test/docker/kubelet-volumes-local",
    "test/docker/kubelet-claims",
  ],
  e2e: ["test/e2e"],
};

function sourceOf(where: string): string {
  const path = where.replaceAll("`", "");
  return path.startsWith("docker/") ? `src/runtime/${path}` : `src/kubelet/${path}`;
}

describe("docs/pod-fields.md", () => {
  const known = tables();
  test("has a table for every type that it must", () => {
    assert.deepEqual(
      required.filter((name) => !known.has(name)),
      [],
    );
  });
  for (const [name, rows] of known) {
    test(`${name}: every field of the API has one row, and no row is of anything else`, () => {
      // An ephemeral container is a container in all but one field.
      const fields = name === "Container" ? fieldsOf("EphemeralContainer") : fieldsOf(name);
      assert.deepEqual(rows.map(({ field }) => field).toSorted(), [...fields].toSorted());
    });
    test(`${name}: every row says what happens, and names files that exist`, () => {
      for (const { field, seenBy, what, where } of rows) {
        assert.match(what, /honoured|refused|elsewhere|no effect|^see |^as in /, field);
        if (where !== "") assert.ok(existsSync(join(root, sourceOf(where))), `${field}: ${where}`);
        if (/honoured|refused/.test(what)) assert.notEqual(where, "", `${field}: where?`);
        for (const named of seenBy.split(", ").filter((text) => text !== "" && text !== "-")) {
          const [level = "", file = ""] = named.split(": ");
          const folders = testFolders[level] ?? [];
          const there = folders.some((folder) => existsSync(join(root, folder, file)));
          assert.ok(there, `${field}: ${named}`);
        }
      }
    });
  }
  test("a container's own fields are an ephemeral one's too", () => {
    const more = fieldsOf("EphemeralContainer").filter((field) => field !== "targetContainerName");
    assert.deepEqual(more, fieldsOf("Container"));
  });
});
