import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import { crossings, layOut } from "../../../src/agent/dashboard/page/model/graph.ts";
import { spread } from "../../../src/agent/dashboard/page/model/spread.ts";
import { pod, service } from "../../component/dashboard/snapshots.ts";

function keys(nodes: readonly { readonly key: string; readonly y: number }[]): readonly string[] {
  return nodes.toSorted((a, b) => a.y - b.y).map(({ key }) => key.replace("default/", ""));
}

function behind(name: string, ...pods: readonly string[]): ReturnType<typeof service> {
  return service({ name, localPods: pods.map((each) => `default/${each}`) });
}

describe("the service graph", () => {
  test("has Services with pods here, and the pods behind them", () => {
    const graph = layOut(
      [behind("web", "web-1", "web-2"), behind("away"), behind("db", "db-0")],
      [pod({ name: "web-1" }), pod({ name: "web-2" }), pod({ name: "db-0" }), pod({ name: "job" })],
      10,
    );
    assert.deepEqual(keys(graph.services), ["db", "web"]);
    assert.deepEqual(keys(graph.pods), ["db-0", "web-1", "web-2"]);
    assert.equal(graph.edges.length, 3);
    assert.equal(graph.height, 30);
    assert.equal(graph.omitted, 0);
  });

  test("a Service stands beside the middle of its pods", () => {
    const graph = layOut([behind("web", "a", "b", "c")], [], 10);
    assert.equal(graph.services[0]?.y, 15);
  });

  test("is untangled where it can be", () => {
    const graph = layOut([behind("a", "z"), behind("b", "y"), behind("c", "x")], [], 10);
    const placed = graph.edges.map(({ from, to }) => [from, to]);
    assert.ok(
      placed.every(([from, to]) => from === to),
      JSON.stringify(placed),
    );
  });

  test("a pod that is not listed yet has its place", () => {
    assert.equal(layOut([behind("web", "new")], [], 10).pods[0]?.pod, undefined);
  });

  test("the same pod twice is one edge", () => {
    assert.equal(layOut([behind("web", "a", "a")], [], 10).edges.length, 1);
  });

  test("with too many it says how many it leaves out, and draws whole Services", () => {
    const services = Array.from({ length: 100 }, (_, index) =>
      behind(`s${index}`, `p${index}-0`, `p${index}-1`),
    );
    const graph = layOut(services, [], 10);
    assert.equal(graph.services.length, 40);
    assert.equal(graph.omitted, 60);
    assert.equal(graph.edges.length, 80);
    const large = behind("all", ...Array.from({ length: 500 }, (_, index) => `p${index}`));
    assert.equal(layOut([large], [], 10).services.length, 1);
  });

  test("nothing overlaps, nothing leaves the picture, and no order of names is more tangled than the first", () => {
    const name = fc.constantFrom("a", "b", "c", "d", "e", "f", "g", "h", "i", "j");
    const some = fc.array(fc.tuple(name, fc.array(name, { minLength: 1, maxLength: 5 })), {
      maxLength: 10,
    });
    fc.assert(
      fc.property(some, (list) => {
        const unique = new Map(list);
        const graph = layOut(
          [...unique].map(([key, pods]) => behind(key, ...pods)),
          [],
          10,
        );
        for (const column of [graph.services, graph.pods]) {
          const ys = column.map(({ y }) => y).toSorted((a, b) => a - b);
          for (const [index, y] of ys.entries()) {
            assert.ok(y >= 5 - 1e-9 && y <= graph.height - 5 + 1e-9);
            if (index > 0) assert.ok(y - (ys[index - 1] ?? 0) >= 10 - 1e-9);
          }
        }
        const edges = graph.edges.map(({ pod, service }) => [service, pod] as const);
        const order = (column: typeof graph.pods | typeof graph.services): readonly string[] =>
          column.toSorted((a, b) => a.y - b.y).map(({ key }) => key);
        const result = { services: order(graph.services), pods: order(graph.pods) };
        const first = {
          services: result.services.toSorted(),
          pods: result.pods.toSorted(),
        };
        assert.ok(crossings(result, edges) <= crossings(first, edges));
      }),
    );
  });
});

describe("spread", () => {
  test("leaves alone what does not overlap", () => {
    assert.deepEqual(spread([0, 2, 5], 10), [0, 2, 5]);
  });
  test("moves what overlaps apart, evenly", () => {
    assert.deepEqual(spread([3, 3, 3], 10), [2, 3, 4]);
  });
  test("stays within its rows", () => {
    assert.deepEqual(spread([8, 9, 9], 10), [7, 8, 9]);
    assert.deepEqual(spread([-4, 0], 10), [0, 1]);
  });
});
