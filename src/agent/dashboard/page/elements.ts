// Everything that comes from the cluster becomes text by textContent or the value of a harmless attribute, here and nowhere
// else: names, messages and events are written by whoever may create a pod.

export type Attributes = Readonly<Record<string, string | number>>;
type Child = Node | string;

/** The element of the page with this id. */
export function part<E extends HTMLElement>(id: string, kind: abstract new () => E): E {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new TypeError(`the page has no #${id}`);
  return found;
}

/** An HTML element. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** An SVG element. */
export function draw<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: readonly Child[]
): SVGElementTagNameMap[K] {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** Sets a text, unless it is there: what a reader has selected stays selected. */
export function say(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute, unless it is there. */
export function mark(element: Element, name: string, value: string): void {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export function show(element: HTMLElement, visible: boolean): void {
  if (element.hidden === visible) element.hidden = !visible;
}

/** One thing of a list on the page. */
export interface Row<T> {
  readonly element: Element;
  update(item: T): void;
}

/** Shows a list: rows stay with their items, by key, so that focus, selection and scrolling survive. */
export class Rows<T> {
  readonly #parent: Element;
  readonly #key: (item: T) => string;
  readonly #create: (item: T) => Row<T>;
  /** Rows stand behind it. */
  readonly #after: Element | null;
  #rows = new Map<string, Row<T>>();

  constructor(
    parent: Element,
    key: (item: T) => string,
    create: (item: T) => Row<T>,
    after: Element | null = null,
  ) {
    this.#parent = parent;
    this.#key = key;
    this.#create = create;
    this.#after = after;
  }

  update(items: readonly T[]): void {
    const rows = new Map<string, Row<T>>();
    for (const item of items) {
      const key = this.#key(item);
      // Two of one name cannot be: whoever sends them is shown the first.
      if (rows.has(key)) continue;
      const row = this.#rows.get(key) ?? this.#create(item);
      row.update(item);
      rows.set(key, row);
    }
    for (const [key, { element }] of this.#rows) if (!rows.has(key)) element.remove();
    let before =
      this.#after === null ? this.#parent.firstElementChild : this.#after.nextElementSibling;
    for (const { element } of rows.values()) {
      if (element === before) before = element.nextElementSibling;
      else this.#parent.insertBefore(element, before);
    }
    this.#rows = rows;
  }
}
