// A table as the kernel keeps it, as strict as the kernel about what is there already and what is not.
import assert from "node:assert/strict";

import type { TableListing } from "../../../../src/netfilter/read-back.ts";
import type { NftOp } from "../../../../src/netfilter/transaction.ts";
import type { DesiredTable } from "../../../../src/proxy/nftables/desired-table.ts";

const clock = { monotonic: () => 0 };

export class KernelModel {
  readonly chains = new Map<string, string[]>();
  readonly containers = new Map<string, Map<string, string>>();
  /** Elements that were added or deleted by the last {@link take}. */
  touched = 0;

  apply(ops: readonly NftOp[]): void {
    for (const op of ops) this.#apply(op);
    this.#check();
  }

  #container(name: string): Map<string, string> {
    const found = this.containers.get(name);
    assert.ok(found !== undefined, `no map or set ${name}`);
    return found;
  }

  #chain(name: string): string[] {
    const found = this.chains.get(name);
    assert.ok(found !== undefined, `no chain ${name}`);
    return found;
  }

  #apply(op: NftOp): void {
    switch (op.op) {
      case "add-table":
        return;
      case "drop-table":
        this.chains.clear();
        this.containers.clear();
        return;
      case "add-chain":
        assert.ok(!this.chains.has(op.chain), `chain ${op.chain} twice`);
        this.chains.set(op.chain, []);
        return;
      case "flush-chain":
        this.#chain(op.chain).length = 0;
        return;
      case "delete-chain":
        assert.deepEqual(this.#chain(op.chain), []);
        this.chains.delete(op.chain);
        return;
      case "add-rule":
        this.#chain(op.chain).push(op.rule.text);
        return;
      case "add-container":
        assert.ok(!this.containers.has(op.container.name), `${op.container.name} twice`);
        this.containers.set(op.container.name, new Map());
        return;
      case "delete-container":
        this.#container(op.name);
        this.containers.delete(op.name);
        return;
      case "flush-container":
        this.#container(op.name).clear();
        return;
      case "add-elements":
        for (const { key, value } of op.elements) {
          const elements = this.#container(op.container);
          assert.ok(!elements.has(key), `${op.container} ${key} is there already`);
          elements.set(key, value);
          this.touched += 1;
        }
        return;
      case "delete-elements":
        for (const key of op.keys) {
          assert.ok(this.#container(op.container).delete(key), `${op.container} has no ${key}`);
          this.touched += 1;
        }
    }
  }

  /** Nothing may lead to what is not there. */
  #check(): void {
    const verdicts = [...this.containers.values()].flatMap((elements) => [...elements.values()]);
    const rules = [...this.chains.values()].flat();
    for (const text of [...verdicts, ...rules]) {
      for (const [, chain = ""] of text.matchAll(/(?:goto|jump) ([\w-]+)/g)) this.#chain(chain);
    }
    for (const rule of rules) {
      for (const [, name = ""] of rule.matchAll(/@([\w-]+)/g)) this.#container(name);
    }
  }

  /** Carries out what a table asks for; returns the number of transactions. */
  async take(table: DesiredTable, listing?: TableListing): Promise<number> {
    this.touched = 0;
    let transactions = 0;
    for await (const changes of table.transactions(clock, listing)) {
      this.apply(changes.ops());
      transactions += 1;
    }
    table.committed();
    table.ledger.noteUnused(0);
    return transactions;
  }

  /** Deletes what nobody uses any more. */
  collect(table: DesiredTable): void {
    this.apply(table.ledger.takeUnused(0));
  }

  /** What is there, with the endpoints of one frontend in order: in which slot each is means nothing to packets. */
  contents(): Map<string, string> {
    const out = new Map<string, string>();
    for (const [name, rules] of this.chains) {
      const lines = inOrder(rules);
      // Clients are remembered for one endpoint each, so the order of these rules means nothing either.
      out.set(`chain ${name}`, (/^a[cl]-/.test(name) ? lines.toSorted() : lines).join("\n"));
    }
    for (const [name, elements] of this.containers) {
      const slots = new Map<string, string[]>();
      for (const [key, value] of elements) {
        if (!name.startsWith("ep-")) {
          out.set(`${name} ${key}`, value);
          continue;
        }
        const frontend = key.slice(0, key.lastIndexOf(" . "));
        const values = slots.get(frontend) ?? [];
        values[Number(key.slice(key.lastIndexOf(" ") + 1))] = value;
        slots.set(frontend, values);
      }
      for (const [frontend, values] of slots) {
        // From zero, without a hole: a packet that finds no endpoint is lost.
        assert.equal(Object.keys(values).length, values.length, `${name} ${frontend}`);
        out.set(`${name} ${frontend}`, values.toSorted().join(", "));
      }
    }
    return out;
  }
}

/** Rules of chains that spread over endpoints, with these in order. */
function inOrder(rules: readonly string[]): readonly string[] {
  return rules.map((rule) => {
    const [, head = "", list = "", tail = ""] =
      /^(.*(?:vmap|map) \{ )(0 : .*)( \})$/.exec(rule) ?? [];
    if (list === "") return rule;
    const targets = list.split(", ").map((item) => item.slice(item.indexOf(" : ")));
    return head + targets.toSorted().join(", ") + tail;
  });
}
