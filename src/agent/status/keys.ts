/** What was pressed: a sign, or a name such as `up`, `enter`, `ctrl-c`. */
export type Key = string;

const sequences: ReadonlyMap<string, Key> = new Map([
  ["\u001B[A", "up"],
  ["\u001BOA", "up"],
  ["\u001B[B", "down"],
  ["\u001BOB", "down"],
  ["\u001B[C", "right"],
  ["\u001BOC", "right"],
  ["\u001B[D", "left"],
  ["\u001BOD", "left"],
  ["\u001B[5~", "pageup"],
  ["\u001B[6~", "pagedown"],
  ["\u001B[H", "home"],
  ["\u001BOH", "home"],
  ["\u001B[1~", "home"],
  ["\u001B[7~", "home"],
  ["\u001B[F", "end"],
  ["\u001BOF", "end"],
  ["\u001B[4~", "end"],
  ["\u001B[8~", "end"],
  ["\u001B[Z", "shift-tab"],
]);

const controls: ReadonlyMap<string, Key> = new Map([
  ["\u0003", "ctrl-c"],
  ["\u0004", "ctrl-d"],
  ["\b", "backspace"],
  ["\t", "tab"],
  ["\n", "enter"],
  ["\f", "ctrl-l"],
  ["\r", "enter"],
  ["\u0015", "ctrl-u"],
  ["\u001A", "ctrl-z"],
  ["\u007F", "backspace"],
]);

const sequence =
  // oxlint-disable-next-line no-control-regex -- escape sequences are what it is about
  /^\u001B(?:\[[0-?]*[ -/]*[@-~]|O[ -~])/;
// oxlint-disable-next-line no-control-regex -- as above
const begun = /^\u001B(?:\[[0-?]*[ -/]*|O)$/;
/** The longest that is waited for; what is longer is no key. */
const maxPending = 32;

/**
 * Keys out of what a terminal in raw mode sends.
 *
 * @param pending What the call before has left.
 * @returns With `rest`, the beginning of a sequence whose end has not come yet.
 */
export function readKeys(
  chunk: string,
  pending = "",
): { readonly keys: readonly Key[]; readonly rest: string } {
  const keys: Key[] = [];
  let text = pending + chunk;
  while (text !== "") {
    const escape = sequence.exec(text)?.[0];
    if (escape !== undefined) {
      // One that we do not know is no reason to do anything.
      const key = sequences.get(escape);
      if (key !== undefined) keys.push(key);
      text = text.slice(escape.length);
      continue;
    }
    if (begun.test(text) && text.length < maxPending) return { keys, rest: text };
    const [sign = ""] = text;
    text = text.slice(sign.length);
    if (sign === "\u001B") keys.push("escape");
    else {
      const name = controls.get(sign);
      if (name !== undefined) keys.push(name);
      else if (!/\p{C}/u.test(sign)) keys.push(sign);
    }
  }
  return { keys, rest: "" };
}
