import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { serverBounds } from "../../../src/kubelet/server/bounds.ts";
import type { Route } from "../../../src/kubelet/server/route.ts";
import { routes } from "../../../src/kubelet/server/routes.ts";

const page = readFileSync(new URL("../../../docs/node-api.md", import.meta.url), "utf8");

/** Rows that only say what is needed to learn that there is nothing. */
function namesNothing({ path }: Route, at: number): boolean {
  const head = path.replace(/\/\{path\*\}$/, "");
  return (
    head !== path && routes.some((other, before) => before < at && other.path.startsWith(head))
  );
}

function line({ path, methods, access, withoutDebugging }: Route): string {
  const verb = access.verb === undefined ? "" : `${access.verb} `;
  const cells = [
    `\`${path}\``,
    methods === "any" ? "any" : methods.join(", "),
    verb + access.subresources.join(", "),
    withoutDebugging,
  ];
  return `| ${cells.join(" | ")} |`;
}

test("the page of the node's API has each row of the table, and no other", () => {
  const documented = page.split("\n").filter((text) => text.startsWith("| `/"));
  const served = routes.filter((route, at) => !namesNothing(route, at));
  assert.deepEqual(documented, served.map(line));
});

test("the page of the node's API has the bounds that hold", () => {
  for (const [text, value] of [
    ["connections, of everybody", String(serverBounds.maxConnections)],
    ["the oldest makes room", String(serverBounds.maxStrangers)],
    ["TLS handshake", `${serverBounds.handshakeTimeout / 1000} s`],
    ["request's line and headers", `${serverBounds.maxHeaderSize / 1024} KiB`],
    ["sent ahead on one connection", String(serverBounds.maxPipelined)],
    ["connection without a request", `${serverBounds.keepAliveTimeout / 1000} s`],
  ] as const) {
    assert(page.includes(`${text} | ${value} |`), `${text} | ${value}`);
  }
});
