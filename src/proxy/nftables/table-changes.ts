import { ElementList } from "../../netfilter/element-list.ts";
import type { NftContainer, NftElement, NftOp } from "../../netfilter/transaction.ts";
import type { ChainClaim } from "../diff.ts";
import { ruleTag } from "../rule-tag.ts";

/** What one transaction does to a table, gathered in any order. */
export class TableChanges {
  readonly containers: NftContainer[] = [];
  /** Sets that remember something which must be forgotten. */
  readonly emptied: string[] = [];
  readonly newChains: ChainClaim[] = [];
  readonly rewrittenChains: ChainClaim[] = [];
  /** What nobody wants any more: deleted in a later transaction. */
  readonly unused: string[] = [];
  /** Values by key, by container. */
  readonly #removed = new Map<string, Map<string, string>>();
  readonly #added = new Map<string, ElementList>();
  #elements = 0;
  #replaced = 0;

  /** Elements that are added or removed. */
  get size(): number {
    return this.#elements;
  }

  /** Things that differ: an element with another value is one. */
  get differences(): number {
    const { containers, newChains, rewrittenChains, unused } = this;
    const objects = containers.length + newChains.length + rewrittenChains.length + unused.length;
    return objects + this.#elements - this.#replaced;
  }

  remove(container: string, key: string, value: string): void {
    let keys = this.#removed.get(container);
    if (keys === undefined) {
      keys = new Map();
      this.#removed.set(container, keys);
    }
    if (!keys.has(key)) this.#elements += 1;
    keys.set(key, value);
  }

  /** What was removed with the same value stays as it is. */
  add(container: string, element: NftElement): void {
    const removed = this.#removed.get(container);
    const before = removed?.get(element.key);
    if (before !== undefined) {
      if (before === element.value) {
        removed?.delete(element.key);
        this.#elements -= 1;
        return;
      }
      this.#replaced += 1;
    }
    this.#elements += 1;
    let elements = this.#added.get(container);
    if (elements === undefined) {
      elements = new ElementList();
      this.#added.set(container, elements);
    }
    elements.push(element);
  }

  /** In the order that the kernel accepts: containers first, because rules name them, and chains before who goes there. */
  ops(): readonly NftOp[] {
    const rules = [
      ...this.newChains.flatMap((chain) => rulesOf(chain)),
      ...this.rewrittenChains.flatMap((chain): NftOp[] => [
        { op: "flush-chain", chain: chain.name },
        ...rulesOf(chain),
      ]),
    ];
    const removals = [...this.#removed].filter(([, keys]) => keys.size > 0);
    return [
      ...this.containers.map((container): NftOp => ({ op: "add-container", container })),
      ...this.newChains.map(({ name, hook }): NftOp => ({
        op: "add-chain",
        chain: name,
        ...(hook === undefined ? {} : { hook }),
      })),
      ...this.emptied.map((name): NftOp => ({ op: "flush-container", kind: "set", name })),
      ...rules,
      ...removals.map(([container, keys]): NftOp => ({
        op: "delete-elements",
        container,
        keys: [...keys.keys()],
      })),
      ...[...this.#added].map(([container, elements]): NftOp => ({
        op: "add-elements",
        container,
        elements,
      })),
    ];
  }
}

function rulesOf({ name, rules }: ChainClaim): readonly NftOp[] {
  return rules.map((text) => ({ op: "add-rule", chain: name, rule: { text, tag: ruleTag(text) } }));
}
